"""The phases of the VLM3D system description: what each learns, for how long, at which rates, judged by what.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from clinic_ai.errors import DatasetError

ENCODER, TASKS, PROJECTOR, LORA = "encoder", "tasks", "projector", "lora"
"""Parts of the network that have a rate of their own; classifier and localiser are the tasks."""


@dataclass(frozen=True)
class Phase:
    """One phase. ``rates`` are those of the parts that learn, ``metric`` is what its best epoch is chosen by.

    ``speaks`` is whether it learns with a language model, ``needs`` what a case must have to be learned from.
    """

    name: str
    epochs: int
    rates: dict[str, float]
    metric: str
    metric_name: str
    needs: str
    speaks: bool = False

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, so that what it sees can be kept."""
        return ENCODER not in self.rates


PHASES = {
    one.name: one
    for one in (
        Phase(
            "encoder",
            50,
            {ENCODER: 5e-5},
            "validation_restored",
            "share of hidden patches foretold",
            "volumes",
        ),
        Phase("classification", 10, {TASKS: 5e-5}, "validation_auroc", "validation AUROC", "labels"),
        Phase("localisation", 15, {TASKS: 3e-5}, "validation_dice", "validation Dice", "masks"),
        Phase(
            "alignment",
            5,
            {PROJECTOR: 1e-4, LORA: 1e-5},
            "validation_words",
            "validation words foretold",
            "reports",
            speaks=True,
        ),
        # Its projector goes on at half its rate: the description names 5e-5 and, for vision and adapters, 1e-5.
        Phase(
            "joint",
            40,
            {ENCODER: 1e-5, TASKS: 3e-5, PROJECTOR: 5e-5, LORA: 1e-5},
            "validation_joint",
            "weighted mean of AUROC, Dice and words foretold",
            "labels or masks",
            speaks=True,
        ),
        Phase("grpo", 10, {LORA: 5e-6}, "validation_reward", "validation reward", "reports", speaks=True),
    )
}
"""The phases by name, in the order in which they are meant."""
JOINT_WEIGHTS = {"classification": 1.0, "localisation": 2.0, "report": 1.5}


def phases_of(words: str) -> tuple[Phase, ...]:
    """Return the phases that ``words`` names, with commas between them. Raise DatasetError if one is unknown."""
    names = [name.strip() for name in words.split(",") if name.strip()]
    strange = [name for name in names if name not in PHASES]
    if strange or not names or len(set(names)) < len(names):
        said = f"{words!r} names {', '.join(strange)}" if strange else f"{words!r} does not name phases, each once"
        raise DatasetError(
            f"The recipe's phase {said}.",
            remedy=f"Write one or several of {', '.join(PHASES)}, with commas between them.",
        )
    return tuple(PHASES[name] for name in names)
