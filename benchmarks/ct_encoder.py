"""What the CT network computes on this machine, beside the bare work: seconds, bytes, and share of the peak.

    python benchmarks/ct_encoder.py [--configuration D] [--device cpu] [--threads 2] [--only encoder study memory]

Every figure stands beside its floor from the same run.

- encoder: one volume of the configuration (64 x 512 x 512 and 16,384 tokens for A to D), against a bare matrix product
  and torch's own attention over as many tokens. The share of the peak is the encoder's operations per second by those
  of the matrix product, in the same precision. A matrix of all tokens by all tokens would be larger than all it holds.
- study: the whole reading by windows and tiles, all tasks; at most 60 s and 3 GB for the reference on two cores.
- memory: what ``clinic-ai model fit ct`` says the network holds, and what it held, to judge and to learn. Within 10 %.

Seconds are CPU time by threads unless a line says wall, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from clinic_ai.heap import share_one_heap
from clinic_ai_ct import memory, sliding
from clinic_ai_ct.configurations import CONFIGURATIONS, NetworkConfig
from clinic_ai_ct.network import CTNetwork, made

MIB = 1 << 20
SIDE = 2048
STUDY_S, STUDY_BYTES = 60.0, 3_000_000_000


class Bench:
    """Runs work on one device and says what it took."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads, self.missed = torch.device(device), threads, 0

    def take(self, work: Callable[[], object]) -> tuple[float, float, int]:
        """Return seconds of ``threads`` processors (of the GPU: wall), wall seconds, and the bytes held on the way."""
        gc.collect()
        before = self._begin()
        cpu, wall = time.process_time(), time.perf_counter()
        kept = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        wall = time.perf_counter() - wall
        seconds = wall if self.device.type == "cuda" else (time.process_time() - cpu) / self.threads
        held = self._held() - before
        del kept
        return seconds, wall, held

    def say(self, what: str, figures: str, kept: bool | None = None) -> None:
        """Print one figure; ``kept`` says whether it is within its budget, None that it has none."""
        self.missed += kept is False
        print(f"{what:<34} {figures}{'' if kept is None else '   kept' if kept else '   MISSED'}", flush=True)

    def _begin(self) -> int:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        return _status("VmRSS")

    def _held(self) -> int:
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))


def floors(bench: Bench, config: NetworkConfig) -> float:
    """Print what a matrix product and bare attention do; return operations a second of the first."""
    one = torch.rand(SIDE, SIDE, device=bench.device)
    one @ one
    seconds, _, _ = bench.take(lambda: [one @ one for _ in range(4)])
    peak = 4 * 2.0 * SIDE**3 / seconds
    bench.say("matrix product", f"{peak / 1e9:8.1f} billion operations a second")
    encoder = config.encoder
    shape = (1, encoder.heads, encoder.tokens, encoder.width // encoder.heads)
    query = torch.rand(shape, device=bench.device)
    with torch.no_grad():
        seconds, _, held = bench.take(lambda: F.scaled_dot_product_attention(query, query, query))
    rate = 4.0 * encoder.tokens**2 * encoder.width / seconds
    bench.say(
        f"attention, {encoder.tokens} tokens",
        f"{rate / 1e9:8.1f} billion a second, {rate / peak:5.0%} of it, {seconds:.2f} s, {held / MIB:.0f} MiB held; "
        f"its matrix would take {4 * encoder.heads * encoder.tokens**2 / MIB:.0f}",
    )
    return peak


def encoder(bench: Bench, network: CTNetwork, image: torch.Tensor, regions: torch.Tensor, peak: float) -> None:
    """Print one look of the encoder."""
    config = network.config.encoder

    def look() -> object:
        with torch.inference_mode():
            return network.encode(image, regions)

    seconds, wall, held = bench.take(look)
    rate = encoder_operations(network.config) / seconds
    matrix = 4 * config.heads * config.tokens**2
    bench.say(
        f"encoder, {math.prod(config.volume) / 1e6:.1f} M voxels",
        f"{rate / 1e9:8.1f} billion a second, {rate / peak:5.0%} of it, {seconds:.2f} s ({wall:.2f} wall), "
        f"{held / MIB:.0f} MiB held",
        kept=held < matrix if config.tokens > 8192 else None,
    )


def encoder_operations(config: NetworkConfig) -> int:
    """Return the operations of one look, counted without computing."""

    def look(network: CTNetwork, image: torch.Tensor, regions: torch.Tensor) -> int:
        with FlopCounterMode(display=False, custom_mapping=memory.ATTENTION) as counted, torch.no_grad():
            network.eval().encoder(image, regions)
        return int(counted.get_total_flops())

    return memory.on_fakes(config, look)


def study(bench: Bench, network: CTNetwork, image: torch.Tensor, regions: torch.Tensor) -> None:
    """Print one whole reading."""
    seconds, wall, held = bench.take(lambda: sliding.read(network, image, regions))
    process = _status("VmHWM")
    budget = network.config == CONFIGURATIONS["reference"].network
    bench.say(
        "study, all tasks",
        f"{seconds:8.2f} s on {bench.threads} threads ({wall:.2f} wall), {held / MIB:.0f} MiB held, "
        f"the process {process / MIB:.0f}",
        kept=(seconds <= STUDY_S and process < STUDY_BYTES) if budget else None,
    )


def told_and_held(bench: Bench, network: CTNetwork, image: torch.Tensor, regions: torch.Tensor) -> None:
    """Print what is said beforehand, and what was held, beside all that is there before: process, weights, image."""
    for what, act in (("to judge", memory.judge_once), ("to learn", memory.learn_once)):
        told = memory.rehearsed(network.config, act)
        _, wall, held = bench.take(lambda act=act: act(network, image, regions))
        network.zero_grad(set_to_none=True)
        beside = _status("VmRSS") if bench.device.type == "cpu" else torch.cuda.memory_allocated()
        off = abs(told - held) / (held + beside)
        bench.say(
            f"memory {what}",
            f"{told / MIB:8.0f} MiB told, {held / MIB:.0f} held beside {beside / MIB:.0f}: {off:.1%} off "
            f"({wall:.0f} s wall)",
            kept=off <= 0.1,
        )


def main() -> int:
    """Print the figures; return 1 if a budget was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configuration", choices=CONFIGURATIONS, default="reference")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=("encoder", "study", "memory"), default=["encoder", "study"])
    given = parser.parse_args()
    share_one_heap()
    torch.set_num_threads(given.threads)
    bench = Bench(given.device, given.threads)
    config = CONFIGURATIONS[given.configuration].network
    network = made(config, seed=0).eval().to(bench.device)
    image = torch.rand(1, config.encoder.channels, *config.encoder.volume, device=bench.device)
    regions = torch.randint(0, config.encoder.regions + 1, (1, *config.encoder.volume), device=bench.device).byte()
    print(f"configuration {given.configuration} on {bench.device}, {given.threads} threads, float32")
    if "encoder" in given.only:
        encoder(bench, network, image, regions, floors(bench, config))
    if "study" in given.only:
        study(bench, network, image, regions)
    if "memory" in given.only:
        told_and_held(bench, network, image, regions)
    return 1 if bench.missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
