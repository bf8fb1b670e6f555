"""The shapes of the network, from a laptop's processor to a large GPU: A, B, C, D and the reference.

A, B and C are those of the VLM3D system description, with its encoder of 12 layers, 12 heads and 768 numbers over
patches of 4 x 16 x 16 voxels. D has the same eyes and a decoder of about 0.1 B parameters; the reference is small
enough to be trained and to judge on two processor cores. Nothing here imports torch.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from clinic_ai.domain import Word
from clinic_ai_ct.anatomy import REGIONS
from clinic_ai_ct.label_sets import all_labels
from clinic_ai_ct.lesions import LESIONS, SIGNS

Size = tuple[int, int, int]
"""Lengths along (z, y, x) = (slice, row, column)."""

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class EncoderConfig(Word):
    """A 3-D vision transformer.

    ``volume`` (D, H, W) is what it sees at once and ``patch`` one token of it, both in voxels. Its layers look
    globally every ``global_every``-th, and elsewhere within slices and through them. ``stem`` makes tokens by one
    convolution as wide as a patch, or by several of 3 x 3 x 3 (Xiao et al. 2021, arXiv:2106.14881).
    ``checkpointing`` recomputes each layer on the way back instead of keeping what it computed.
    """

    volume: Size
    patch: Size
    channels: int = Field(default=3, ge=1)
    width: int = Field(default=768, ge=1)
    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=2)
    mlp_width: int = Field(default=3072, ge=1)
    global_every: int = Field(default=3, ge=1)
    regions: int = Field(default=len(REGIONS), ge=0)
    stem: Literal["patch", "convolutions"] = "patch"
    checkpointing: bool = True

    @model_validator(mode="after")
    def _whole(self) -> EncoderConfig:
        if any(side % part for side, part in zip(self.volume, self.patch, strict=True)):
            raise ValueError(f"the volume {self.volume} is not whole patches of {self.patch}")
        if self.width % self.heads or self.heads % 2:
            raise ValueError("the width must divide by the heads, and half of these look through the slices")
        if any(part & (part - 1) for part in self.patch):
            raise ValueError(f"the sides of a patch are powers of two, not {self.patch}")
        return self

    @property
    def grid(self) -> Size:
        """Patches along (z, y, x)."""
        z, y, x = (side // part for side, part in zip(self.volume, self.patch, strict=True))
        return z, y, x

    @property
    def tokens(self) -> int:
        """Patches of one volume."""
        return math.prod(self.grid)


class TextConfig(Word):
    """A BERT-type text encoder, frozen.

    One that is ``bundled`` is so small that its weights lie with those of the network; any other is a local
    directory, needed while learning only: what it says of each label is kept with the network.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    vocabulary: int = 28996
    tokens: int = Field(default=32, ge=4)
    """Longest prompt that is read, in tokens."""
    bundled: bool = False


class ClassifierConfig(Word):
    """Image and text meet in ``width`` numbers; ``soft_tokens`` learned ones stand before the words of each label."""

    labels: tuple[str, ...] = Field(default_factory=all_labels, min_length=1)
    width: int = 512
    heads: int = 8
    soft_tokens: int = 8


class LocaliserConfig(Word):
    """Denoising transformer, then attention U-Net of ``base`` channels at full resolution.

    ``tile`` (D, H, W) is how many voxels the U-Net sees at once when it judges, ``overlap`` the share that
    neighbouring tiles have in common. With ``mirrored`` it draws each tile twice when it judges, once with left and
    right exchanged, and the mean of both logits counts (as in nnU-Net, Isensee et al. 2021): for a U-Net that learned
    from tiles of both kinds. ``noise`` is the spread of what is added to the features while learning, relative to
    theirs.
    """

    findings: tuple[str, ...] = LESIONS
    width: int = 640
    layers: int = 4
    heads: int = 10
    base: int = 32
    largest: int = 256
    """Channels of the deepest level at most."""
    noise: float = Field(default=0.1, ge=0)
    tile: Size = (64, 128, 128)
    overlap: float = Field(default=0.25, ge=0, lt=1)
    mirrored: bool = False


class ProjectorConfig(Word):
    """Learned queries that read the image for a language model whose embeddings have ``language_width`` numbers."""

    queries: int = 256
    layers: int = 3
    width: int = 768
    heads: int = 12
    language_width: int


class NetworkConfig(Word):
    """Everything that makes a CTNetwork; kept beside its weights as JSON."""

    encoder: EncoderConfig
    text: TextConfig = TextConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    localiser: LocaliserConfig = LocaliserConfig()
    projector: ProjectorConfig
    spacing: tuple[float, float, float]
    """Millimetres between voxels along (z, y, x)."""
    windows: tuple[tuple[float, float], ...] = ((-600.0, 1500.0), (40.0, 400.0), (400.0, 1800.0))
    """(centre, width) in Hounsfield units of each channel: lung, soft tissue, bone."""

    @model_validator(mode="after")
    def _agree(self) -> NetworkConfig:
        if len(self.windows) != self.encoder.channels:
            raise ValueError(f"{len(self.windows)} windows do not make {self.encoder.channels} channels")
        return self


class LanguageConfig(Word):
    """The published language model that a configuration is made for: its architecture, by class and numbers.

    ``values`` are those of the config class ``family`` in transformers. Any causal model with the same seven
    projections may stand in its place; the weights come from a local directory.
    """

    published: str
    family: Literal["llama", "gemma2"]
    values: dict[str, int | float | bool]
    quantisation: Literal["none", "nf4"]
    rank: int
    alpha: int
    targets: tuple[str, ...] = SEVEN_PROJECTIONS


class Configuration(Word):
    """A network with the language model it writes with; ``device`` is where it is meant to compute."""

    name: str
    summary: str
    network: NetworkConfig
    language: LanguageConfig | None
    device: Literal["cpu", "cuda"]


_LLAMA_70B = LanguageConfig(
    published="meta-llama/Llama-3.1-70B-Instruct",
    family="llama",
    values={
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    quantisation="nf4",
    rank=64,
    alpha=128,
)
_GEMMA_27B = LanguageConfig(
    published="google/gemma-2-27b-it",
    family="gemma2",
    values={
        "vocab_size": 256000,
        "hidden_size": 4608,
        "intermediate_size": 36864,
        "num_hidden_layers": 46,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "query_pre_attn_scalar": 144,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    quantisation="nf4",
    rank=64,
    alpha=128,
)
_LLAMA_8B = LanguageConfig(
    published="meta-llama/Llama-3.1-8B-Instruct",
    family="llama",
    values={
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    },
    quantisation="nf4",
    rank=32,
    alpha=128,
)
_SMALL = LanguageConfig(
    published="HuggingFaceTB/SmolLM2-135M-Instruct",
    family="llama",
    values={
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    quantisation="none",
    rank=16,
    alpha=32,
)
_EYES = EncoderConfig(volume=(64, 512, 512), patch=(4, 16, 16))
_SPACING = (2.0, 0.742, 0.742)


def _published(name: str, summary: str, language: LanguageConfig, base: int) -> Configuration:
    return Configuration(
        name=name,
        summary=summary,
        network=NetworkConfig(
            encoder=_EYES,
            localiser=LocaliserConfig(base=base),
            projector=ProjectorConfig(language_width=int(language.values["hidden_size"])),
            spacing=_SPACING,
        ),
        language=language,
        device="cuda",
    )


REFERENCE = Configuration(
    name="reference",
    summary="two processor cores, a grid of 3 mm, reports from templates",
    network=NetworkConfig(
        encoder=EncoderConfig(
            volume=(112, 128, 128),
            patch=(8, 16, 16),
            width=192,
            layers=6,
            heads=6,
            mlp_width=576,
            stem="convolutions",
        ),
        text=TextConfig(width=128, layers=2, heads=4, mlp_width=256, vocabulary=320, bundled=True),
        classifier=ClassifierConfig(width=128, heads=4, soft_tokens=4),
        localiser=LocaliserConfig(
            findings=(*LESIONS, *SIGNS), width=128, heads=4, base=12, largest=80, tile=(48, 48, 48)
        ),
        projector=ProjectorConfig(queries=32, layers=2, width=128, heads=4, language_width=576),
        spacing=(3.0, 3.0, 3.0),
    ),
    language=None,
    device="cpu",
)
"""Grid and widths were chosen by measuring: see ``benchmarks/ct_encoder.py``."""

CONFIGURATIONS = {
    one.name: one
    for one in (
        _published("A", "Llama 3.1 with 70 billion parameters in four bits, on a GPU of 80 GB or more", _LLAMA_70B, 64),
        _published("B", "Gemma 2 with 27 billion parameters in four bits, on a GPU of 48 GB or more", _GEMMA_27B, 48),
        _published("C", "Llama 3.1 with 8 billion parameters in four bits, on a GPU of 24 GB or more", _LLAMA_8B, 32),
        _published("D", "a decoder of 0.13 billion parameters, the choice for a clinic", _SMALL, 32).model_copy(
            update={"device": "cpu"}
        ),
        REFERENCE,
    )
}
"""The configurations by name, the largest first."""
