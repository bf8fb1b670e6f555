"""How fast an adapter is trained, beside the plain way and beside the limit of what is left to do.

    python benchmarks/ultrasound.py [--images 20] [--rounds 3] [--full]

A BLIP-2 of some million parameters learns the same pairs in the same order three ways, which take turns:

- plain: transformers' ``Trainer`` over PEFT, batch 1, which looks at the image anew in every step;
- ours: what ``UltrasoundTrainer`` does after the features of the images were computed once;
- bare: nothing but forward, backward and optimiser of the language model, over embeddings that are there already.

Plain over bare is the limit: what is left to do when nothing but the language model takes time. Ours should reach 0.9
of it, with the losses of the plain way. Then the same with eight answers at once, against eight accumulated steps of
one. Figures are medians of processor time on one thread; on a GPU of time.

``--full`` looks at BLIP-2 OPT-2.7B, built from its config with random weights: how many numbers are learned, what the
weights take in memory in 8 bits, and a step with and without kept features. On a CPU a step is measured with a few
layers and calculated for all; on a GPU the whole model is measured in bfloat16.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

_ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "plugins" / "ultrasound" / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402 - after the threads are set

from benchmarks.parts import full_blip2, plain_adapter  # noqa: E402
from clinic_ai.contract import Device  # noqa: E402
from clinic_ai_ultrasound.costs import Sizes  # noqa: E402

OF_THE_LIMIT = 0.9
ON_A_GPU = 3.0
"""How many times faster than the plain loop at the same effective batch; there it waits for the launch of kernels."""
TRAINABLE = 2_621_440
STATED_GB = 4.21
_LOSSES = 1e-4


class Verdicts:
    """Prints one line for each figure; remembers whether a budget was missed."""

    def __init__(self) -> None:
        self.missed = 0

    def say(self, what: str, figures: str, kept: bool | None = None) -> None:
        """Print one figure; ``kept`` says whether it is within its budget, None that it has none."""
        self.missed += kept is False
        print(f"{what:<44} {figures}{'' if kept is None else '   kept' if kept else '   MISSED'}", flush=True)


def measure_epochs(images: int, rounds: int, device: Device, verdicts: Verdicts) -> None:
    """Compare epochs of the small model."""
    for batch in (1, 8):
        with tempfile.TemporaryDirectory() as name:
            found = plain_adapter.compare(
                Path(name), images=images, rounds=rounds, epochs=2, device=device, batch=batch
            )
        what = f"{found.pairs} pairs, {found.parameters / 1e6:.1f} M, {batch} at once"
        verdicts.say(
            f"losses of two epochs, {batch} at once",
            f"differ by {found.loss_difference:.1e}, at most {_LOSSES:g}",
            found.loss_difference <= _LOSSES,
        )
        figures = (
            f"plain {found.plain:.2f} s, ours {found.ours:.2f} s: {found.ratio:.2f} times faster; "
            f"bare {found.bare:.2f} s, limit {found.limit:.2f}: {found.ratio / found.limit:.2f} of it, "
            f"at least {OF_THE_LIMIT}"
        )
        verdicts.say(f"an epoch of {what}", figures, found.ratio >= OF_THE_LIMIT * found.limit)
        if device.kind == "cuda" and batch > 1:
            verdicts.say("on a GPU, the same effective batch", f"at least {ON_A_GPU:g}", found.ratio >= ON_A_GPU)
        for epochs in (1, 5):
            whole = epochs * found.plain / (found.features + epochs * found.ours)
            verdicts.say(
                f"a run of {epochs} epochs, {batch} at once",
                f"{whole:.2f} times faster, the {found.features:.2f} s for the features included",
            )


def measure_full(rounds: int, verdicts: Verdicts) -> None:
    """Look at the model of the document in full size."""
    sizes = Sizes.of("blip2", full_blip2.config())
    learned = sizes.lora(8)
    verdicts.say("BLIP-2 OPT-2.7B, parameters", f"{sizes.total:,}")
    verdicts.say("numbers learned at rank 8", f"{learned:,}, must be {TRAINABLE:,}", learned == TRAINABLE)
    gigabytes = sizes.weight_bytes("int8", dtype_bytes=2) / 1e9
    verdicts.say(
        "weights with int8 linear layers",
        f"{gigabytes:.3f} GB, the document says {STATED_GB}",
        abs(gigabytes - STATED_GB) < 0.05,
    )
    if torch.cuda.is_available():
        gpu = torch.device("cuda", 0)
        for batch in (1, 8):
            steps = full_blip2.measure(
                full_blip2.VISION_LAYERS,
                full_blip2.LANGUAGE_LAYERS,
                gpu,
                torch.bfloat16,
                batch=batch,
                rounds=5 * rounds,
            )
            _say_steps(f"a step on the GPU, {batch} at once, per answer", steps, verdicts)
        verdicts.say("most memory taken", f"{torch.cuda.max_memory_allocated(gpu) / 1e9:.2f} GB")
    else:
        _say_steps("a step on one thread, float32, calculated", full_blip2.on_a_processor(rounds), verdicts)


def _say_steps(what: str, steps: full_blip2.Steps, verdicts: Verdicts) -> None:
    verdicts.say(
        what,
        f"{1000 * steps.plain:,.0f} ms, with features kept {1000 * steps.cached:,.0f} ms: "
        f"{steps.plain / steps.cached:.2f} times faster",
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="the model of the document in full size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of transformers, for what PEFT calls
    verdicts = Verdicts()
    if options.full:
        measure_full(options.rounds, verdicts)
    else:
        device = Device(kind="cuda" if torch.cuda.is_available() else "cpu")
        measure_epochs(options.images, options.rounds, device, verdicts)
    return 1 if verdicts.missed else 0


if __name__ == "__main__":
    sys.exit(main())
