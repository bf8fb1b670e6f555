"""The whole network for chest CT: one encoder, and what three tasks make of its features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clinic_ai_ct.blocks import prepare
from clinic_ai_ct.classifier import Classifier, prompts_of
from clinic_ai_ct.configurations import NetworkConfig
from clinic_ai_ct.encoder import Encoder, Features
from clinic_ai_ct.localiser import Localiser, probabilities
from clinic_ai_ct.projector import Projector
from clinic_ai_ct.text import Prompts, TextEncoder, bundled_text_encoder


class CTNetwork(nn.Module):
    """Encoder, text-prompted classifier, text-guided localiser and projector.

    The encoder runs once: ``encode``, and then whatever is wanted of ``classify``, ``localise`` and ``project``.
    Images are (B, C, D, H, W) in 0..1, one channel for each window of the config, on its grid in canonical order.

    ``texts`` is the text encoder where the config's is a local directory; without it the soft prompts do not learn,
    and what it said has to come with the weights. A bundled one is made here.
    """

    def __init__(self, config: NetworkConfig, texts: TextEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        if config.text.bundled:
            read = [*prompts_of(config.classifier.labels), *prompts_of(config.localiser.findings)]
            texts = bundled_text_encoder(config.text, read)
        self.encoder = Encoder(config.encoder)
        self.classifier = Classifier(config, texts)
        self.localiser = Localiser(config, texts)
        self.projector = Projector(config)
        for part in (self.encoder, self.classifier, self.localiser, self.projector):
            part.apply(prepare)
        self.bundled: nn.Module | None = texts.model if texts is not None and config.text.bundled else None
        """A text encoder that is kept with the network; frozen."""
        self.text_digest = "" if texts is None else texts.digest
        """SHA-256 of the weights of the text encoder that is not kept with it."""

    def encode(self, image: Tensor, regions: Tensor | None = None) -> Features:
        """Look at (B, C, D, H, W); see ``Encoder.forward``. Raise ValueError also for a region that is not known."""
        known = self.config.encoder.regions
        if regions is not None and int(regions.max()) > known:
            raise ValueError(f"The region mask has the number {int(regions.max())}; there are {known} regions.")
        found: Features = self.encoder(image, regions)
        return found

    def classify(self, features: Features) -> Tensor:
        """Return logits (B, L), labels in the order of ``config.classifier.labels``."""
        logits: Tensor = self.classifier(features)
        return logits

    def refine(self, features: Features) -> Tensor:
        """Return the features of the patches as the U-Net takes them: (B, width, D', H', W')."""
        return self.localiser.refine(features)

    def segment(self, refined: Tensor, image: Tensor) -> Tensor:
        """Return logits (B, K, D, H, W) of an image or a tile of it, and the refined features of the same patches."""
        return self.localiser.segment(refined, image)

    def localise(self, features: Features, image: Tensor) -> Tensor:
        """Return logits (B, K, D, H, W), findings in the order of ``config.localiser.findings``.

        All is computed at once, as learning needs it; ``sliding.read`` goes by tiles and holds less.
        """
        return self.segment(self.refine(features), image)

    def probabilities(self, masks: Tensor) -> npt.NDArray[np.float32]:
        """Return what logits (K, D, H, W) of one volume say of each voxel; see ``localiser.probabilities``."""
        chances: npt.NDArray[np.float32] = probabilities(masks, self.config.localiser.findings).cpu().numpy()
        return chances

    def project(self, features: Features) -> Tensor:
        """Return (B, Q, W): Q tokens in the width W of the language model."""
        spoken: Tensor = self.projector(features)
        return spoken

    def renew(self) -> None:
        """Keep what the text encoder says now of labels and findings, if it is at hand."""
        for prompts in self._prompts():
            if prompts.attached:
                prompts.renew()

    def share_text_encoder(self, texts: TextEncoder) -> None:
        """Give the text encoder this network learned with, so that soft prompts can go on learning."""
        for prompts in self._prompts():
            prompts.share(texts.model)

    def _prompts(self) -> tuple[Prompts, Prompts]:
        return self.classifier.prompts, self.localiser.prompts

    def train(self, mode: bool = True) -> CTNetwork:
        """Switch between learning and judging; a text encoder stays frozen and never drops anything out."""
        super().train(mode)
        if self.bundled is not None:
            self.bundled.train(False)
        return self


def made(config: NetworkConfig, seed: int, texts: TextEncoder | None = None) -> CTNetwork:
    """Return a network with random weights that ``seed`` alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CTNetwork(config, texts)
