"""Builds the reference model: ``python -m clinic_ai_ct.reference.build --work DIR --threads 2``.

Everything is drawn by software from seeds; no image of a patient is used. What a step gave lies in ``DIR`` and is not
made again: a build that was ended goes on where it was. At the end phantoms that nothing was learned or chosen from go
through the engine as DICOM series, and their figures go into the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.unlike import LIMIT, STATISTICS, write_statistics
from clinic_ai_ct.configurations import REFERENCE, NetworkConfig
from clinic_ai_ct.network import CTNetwork, made
from clinic_ai_ct.reference.calibrating import look, operating_points, whole_features
from clinic_ai_ct.reference.card import card, dice_figure
from clinic_ai_ct.reference.drawing import learn_to_draw
from clinic_ai_ct.reference.examples import JUDGED, draw
from clinic_ai_ct.reference.judging import judge
from clinic_ai_ct.reference.learning import learn_to_see, learn_to_tell
from clinic_ai_ct.reference.sealing import seal
from clinic_ai_ct.reference.stages import Report, Stage
from clinic_ai_ct.reference.tiles import Corpus
from clinic_ai_ct.saving import write_network

SEED = 1
TRAIN, CALIBRATE, HELD_OUT = 0, 100_000, 500_000
"""First seeds of the phantoms that are learned from, calibrated on and judged. Those from 200,000 up to here judged
earlier models, and what their errors taught went into this one, so they judge no more."""
SHARES = {"begin": 0.024, "look": 0.026, "see": 0.013, "tell": 0.011, "draw": 0.054, "sharpen": 0.872}
"""Of the time, that for each stage."""
NAME = "reference"
CARD, FIGURE, SUMMARY = "README.md", "dice.png", "training_summary.json"


@dataclass(frozen=True)
class Plan:
    """What is drawn and how long is learned: numbers of phantoms, and seconds of CPU."""

    train: int
    fresh: int
    """More of them, that the classifier alone learns from."""
    calibrate: int
    held_out: int
    seconds: float
    threads: int = 1


def network_config() -> NetworkConfig:
    """Return the reference network; it is held in memory whole while it learns, which is faster than recomputing."""
    network = REFERENCE.network
    return network.model_copy(update={"encoder": network.encoder.model_copy(update={"checkpointing": False})})


def build(plan: Plan, work: Path, target: Path, report: Report, config: NetworkConfig | None = None) -> dict[str, Any]:
    """Train, calibrate, write the model into ``target``, judge it; return its figures."""
    work.mkdir(parents=True, exist_ok=True)
    config = config or network_config()
    network = trained(plan, work, config, report)
    calibrating = [draw(CALIBRATE + n, config, work / "phantoms") for n in range(plan.calibrate)]
    report("calibrating")
    seen = look(network, calibrating, work / "drawn")
    parameters = operating_points(network, calibrating, seen, work / "drawn")
    known = whole_features(network, [draw(TRAIN + n, config, work / "phantoms") for n in range(min(plan.train, 200))])
    target.mkdir(parents=True, exist_ok=True)
    files = list(write_network(without_regions(network), target, torch.float16))
    parameters[LIMIT] = write_statistics(known, seen.features, target, ridge=1e-2, margin=1.25)
    files.append(target / STATISTICS)
    model = seal(target, files, NAME, parameters=parameters)
    tally = judge(model, [HELD_OUT + n for n in range(plan.held_out)], plan.threads, report)
    figures = tally.figures()
    dataset = f"{plan.held_out} phantoms drawn by software; no patients"
    target.with_name(f"{target.name}.{FIGURE}").write_bytes(dice_figure(figures))  # a model holds no picture
    write_durably(target / CARD, card(figures, plan.train, plan.fresh, plan.seconds).encode())
    write_durably(target / SUMMARY, json.dumps({"plan": vars(plan), "figures": figures}, indent=1).encode())
    extra = [target / name for name in (CARD, SUMMARY)]
    seal(target, [*files, *extra], NAME, parameters=parameters, validation=tally.validation(dataset))
    return figures


def trained(plan: Plan, work: Path, config: NetworkConfig, report: Report) -> CTNetwork:
    """Return the network after all stages."""
    files = []
    for number in range(plan.train):
        files.append(draw(TRAIN + number, config, work / "phantoms"))
        if (number + 1) % 50 == 0:
            report(f"drew {number + 1} of {plan.train} phantoms")
    network = made(config, SEED)
    with torch.no_grad():  # fewer voxels show a lesion in a whole chest than in the tiles that are learned from
        network.localiser.unet.bias.fill_(-3.0)
    corpus = Corpus(files)
    seconds = {name: share * plan.seconds for name, share in SHARES.items()}
    begin = Stage("begin", seconds["begin"], 3e-3, 4)
    look, see = Stage("look", seconds["look"], 1e-3, 2), Stage("see", seconds["see"], 5e-4, 1)
    learn_to_see(network, corpus, (begin, look, see), work, report)
    fresh = [draw(TRAIN + plan.train + n, config, work / "phantoms") for n in range(plan.fresh)]
    learn_to_tell(network, corpus, fresh, Stage("tell", seconds["tell"], 1e-3, 16), work, report)
    drawing = Stage("draw", seconds["draw"], 3e-3, 2), Stage("sharpen", seconds["sharpen"], 2e-3, 2)
    learn_to_draw(network, corpus, drawing, work, report)
    return network.eval()


def without_regions(network: CTNetwork) -> CTNetwork:
    """Return the same network as one that has no regions to attend to: it was shown none."""
    encoder = network.config.encoder.model_copy(update={"regions": 0})
    bare = made(network.config.model_copy(update={"encoder": encoder}), SEED)
    bare.load_state_dict({**network.state_dict(), "encoder.regions": bare.encoder.regions.detach()})
    return bare.eval()


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the reference model of the CT plugin.")
    parser.add_argument("--work", type=Path, required=True, help="folder for what each step gave; kept between runs")
    parser.add_argument("--target", type=Path, default=Path(__file__).parent / "chest", help="folder of the model")
    parser.add_argument("--cpu-hours", type=float, default=10.8, help="CPU time for learning, drawing phantoms aside")
    parser.add_argument("--phantoms", type=int, default=280, help="phantoms to learn from")
    parser.add_argument("--fresh", type=int, default=200, help="more of them, for the classifier alone")
    parser.add_argument("--calibrate", type=int, default=100, help="phantoms to calibrate on")
    parser.add_argument("--held-out", type=int, default=50, help="phantoms to judge")
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    plan = Plan(
        chosen.phantoms, chosen.fresh, chosen.calibrate, chosen.held_out, chosen.cpu_hours * 3600, chosen.threads
    )

    def report(line: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        sys.stdout.flush()

    report(json.dumps(build(plan, chosen.work, chosen.target, report), indent=1))
    report(f"judged {len(JUDGED)} conditions")


if __name__ == "__main__":
    main()
