"""Builds the reference organ segmenter: ``python -m clinic_ai_ct.reference.organs``; minutes on two cores.

A small U-Net learns on coarse phantoms, whose organs are known voxel by voxel, each drawn anew for a step. It is judged
on phantoms of other seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.mask_scores import dice
from clinic_ai_ct.anatomy import REGIONS
from clinic_ai_ct.phantoms import Phantom, make
from clinic_ai_ct.preparing import image_of
from clinic_ai_ct.reference import sealing
from clinic_ai_ct.reference.examples import varied
from clinic_ai_ct.regions import SLOT, Labels, SegmenterConfig, segmenter_network, write_segmenter

SHAPE, SPACING = (48, 48, 48), (8.0, 8.0, 8.0)
"""Sides are multiples of 16, as `OrganSegmenter.find` brings every volume to."""
LEARNED, HELD_OUT = 300_000, 400_000
"""First seeds of the phantoms that are learned from and judged; those of the network are others."""
RATE, WARM_UP, SEED = 1e-2, 0.1, 5
CARD = "README.md"
_TOO_THIN = {"stomach", "shoulder_girdle", "oesophagus", "trachea", "aorta", "pulmonary_artery", "ribs"}
CONFIG = SegmenterConfig(
    names=tuple(name for name in REGIONS if name not in _TOO_THIN),
    windows=((-600.0, 1500.0), (40.0, 400.0)),
    spacing=SPACING,
    features=(8, 8, 16, 32, 64, 8),
)
"""What a phantom does not draw, or draws in a few voxels of this grid, is left to everything else: after 400 steps the
wind pipe, the ribs and the pulmonary artery had a Dice of 0.00, the aorta 0.27."""


def drawn(seed: int) -> tuple[Phantom, Labels]:
    """Return a coarse phantom and its organs (D, H, W) by the numbers of ``CONFIG``."""
    phantom = make(seed, shape=SHAPE, spacing=SPACING)
    table = np.zeros(256, np.uint8)
    for number, name in enumerate(CONFIG.names, start=1):
        table[REGIONS.index(name) + 1] = number
    labels: Labels = table[phantom.organs]
    return phantom, labels


def learn(network: BasicUNet, steps: int) -> Iterator[tuple[int, float]]:
    """Yield step and loss after each of so many steps."""
    network.train()
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    for step in range(steps):
        warm = WARM_UP * steps
        share = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
        optimiser.param_groups[0]["lr"] = RATE * share + 1e-5
        phantom, labels = drawn(LEARNED + step)
        image = varied(image_of(phantom.volume, CONFIG.windows), torch.Generator().manual_seed(step))
        loss: Tensor = loss_of(network(image), torch.from_numpy(labels)[None, None].long())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        yield step + 1, float(loss.detach())


def judge(network: BasicUNet, count: int) -> dict[str, float]:
    """Return the mean Dice of each organ on so many phantoms that nothing was learned from."""
    scores: dict[str, list[float]] = {name: [] for name in CONFIG.names}
    network.eval()
    for seed in range(HELD_OUT, HELD_OUT + count):
        phantom, labels = drawn(seed)
        with torch.inference_mode():
            found = network(image_of(phantom.volume, CONFIG.windows)).argmax(dim=1)[0].numpy()
        for number, name in enumerate(CONFIG.names, start=1):
            if (labels == number).any():
                scores[name].append(dice(found == number, labels == number))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def write(network: BasicUNet, target: Path, scores: dict[str, float], steps: int, held_out: int) -> None:
    """Write weights, config, card and manifest."""
    target.mkdir(parents=True, exist_ok=True)
    files = [*write_segmenter(network, CONFIG, target), target / CARD]
    write_durably(target / CARD, _card(scores, steps, held_out).encode())
    sealing.seal(target, files, "organs", slot=SLOT)


def _card(scores: dict[str, float], steps: int, held_out: int) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {score:.2f} |" for name, score in scores.items())
    return f"""# Organs of the chest, reference model

**Not for clinical use.** It shows that the appliance works. It has seen {steps} chests drawn by software, and no image
of a patient.

- **What it does**: names the region of each voxel of a chest CT on a grid of 8 mm, so that places in a report and
  segments of organs come from a mask. It is in use once somebody promotes it into the slot `{SLOT}`; retire it, and
  places are thirds of the lungs again.
- **Network**: MONAI's `BasicUNet`, widths {CONFIG.features}, windows (centre, width) {CONFIG.windows} HU.
- **Learned**: {steps} steps of one phantom each, Dice and cross-entropy, AdamW.
  `python -m clinic_ai_ct.reference.organs --steps {steps}` makes it again.
- **Judged** on {held_out} phantoms of other seeds; mean Dice {np.mean(list(scores.values())):.2f}:

| region | Dice |
|---|---|
{rows}

What this says of patients: nothing. A phantom's organs are smooth and lie where an atlas has them; vessels, disease
that moves organs, and other scanners are not in it.
"""


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the reference organ segmenter of the CT plugin.")
    parser.add_argument("--target", type=Path, default=Path(__file__).parent / "segmenter", help="folder of the model")
    parser.add_argument("--steps", type=int, default=600, help="phantoms to learn from, one a step")
    parser.add_argument("--held-out", type=int, default=20, help="phantoms to judge")
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(SEED)
    network = segmenter_network(CONFIG)
    for step, loss in learn(network, chosen.steps):
        if step % 50 == 0 or step == chosen.steps:
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} step {step} of {chosen.steps}, loss {loss:.3f}\n")
            sys.stdout.flush()
    scores = judge(network, chosen.held_out)
    write(network, chosen.target, scores, chosen.steps, chosen.held_out)
    sys.stdout.write(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
