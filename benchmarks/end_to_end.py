"""What the appliance adds to the bare work on a chest X-ray, in CPU time.

    python benchmarks/end_to_end.py [--images 20] [--rows 2500] [--columns 2048]

Phantom DX files (16 bit) are made first. Then, in one run on the same files and with one thread each:

- bare: decode (pydicom) + resize (Pillow) + onnxruntime in one warm process, the least anybody can do
- analysis: the same files through the warm engine child, from path to findings and heat map, with the daemon's
  share of the call
- whole: the same files through the whole appliance, from copy to PDF, SR and result.json in the outbox, as
  ``clinic-ai process`` does it, all children included

The ratio analysis/bare is the one with a budget: at most 1.2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import psutil

from clinic_ai.confinement import Confinement
from clinic_ai.contract import AnalysisTask, Device, EngineLoad, LoadedModel, ModelManifest, Ready, TaskImage
from clinic_ai.domain import Analysis, FileKind, InstanceHeader, ModelRef, StudyFacts
from clinic_ai.process import run_files
from clinic_ai.processes import Child, ChildSpec

ROUNDS = 3
BARE = """
import json, sys, time
import numpy as np, onnxruntime, pydicom
from PIL import Image
model, rounds, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
feed = session.get_inputs()[0].name
def judge(path):
    pixels = pydicom.dcmread(path).pixel_array.astype(np.float32)
    small = np.asarray(Image.fromarray(pixels).resize((128, 128), Image.Resampling.BOX, reducing_gap=2.0))
    small = (small - small.min()) / max(float(np.ptp(small)), 1.0)
    shape = [1 if not isinstance(n, int) else n for n in session.get_inputs()[0].shape]
    image = np.broadcast_to(small, shape).astype(np.float32)
    return session.run(None, {feed: np.ascontiguousarray(image)})
judge(paths[0])
times = []
for _ in range(rounds):
    began = time.process_time()
    for path in paths:
        judge(path)
    times.append((time.process_time() - began) / len(paths))
print(json.dumps(sorted(times)[len(times) // 2]))
"""
MAKE = """
import sys
from clinic_ai_xray.phantom import draw_chest, write_dx
from pathlib import Path
folder, count, rows, columns = Path(sys.argv[1]), *map(int, sys.argv[2:])
for seed in range(count):
    write_dx(folder / f"{seed:04d}.dcm", draw_chest(rows, columns, seed=seed, opacity=seed % 2 == 0), seed=seed)
"""


def reference_model() -> LoadedModel:
    """Return the X-ray plugin's reference model as the registry would hand it to the engine."""
    spec = find_spec("clinic_ai_xray")
    assert spec is not None
    assert spec.origin is not None
    directory = Path(spec.origin).parent / "reference" / "pneumonia-fast"
    text = (directory / "model.toml").read_bytes()
    manifest = ModelManifest.model_validate(tomllib.loads(text.decode()))
    digest = hashlib.sha256(text).hexdigest()
    ref = ModelRef(
        plugin="xray", slot=manifest.slot, name=manifest.name, version=manifest.version, digest=digest, reference=True
    )
    return LoadedModel(ref=ref, directory=str(directory), manifest=manifest)


def measure_bare(model: LoadedModel, paths: list[Path]) -> float:
    """Return CPU seconds per image of decode + resize + onnxruntime."""
    onnx = next(Path(model.directory) / f.name for f in model.manifest.files if f.name.endswith(".onnx"))
    command = [sys.executable, "-c", BARE, str(onnx), str(ROUNDS), *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(json.loads(answer.stdout))


def measure_analysis(model: LoadedModel, paths: list[Path], work: Path) -> float:
    """Return CPU seconds per image in the warm engine child, the caller's share included."""
    child = Child(
        ChildSpec(
            kind="engine",
            name="xray engine",
            confinement=Confinement(),
            environment=(("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")),
        )
    )
    try:
        load = EngineLoad(engine="clinic_ai_xray.engine:XrayEngine", models=(model,), device=Device(threads=1))
        child.call("load", load, Ready, timeout_s=120)
        facts = StudyFacts(modalities=("DX",), body_parts=("CHEST",), views=("PA",), slices=1)
        header = InstanceHeader(kind=FileKind.DICOM, modality="DX", body_part="CHEST", view_position="PA")

        def judge(number: int, path: Path) -> Analysis:
            image = TaskImage(path=str(path), sha256=f"{number:064x}", header=header)
            task = AnalysisTask(
                job_id=f"J-{number}",
                facts=facts,
                images=(image,),
                output_directory=str(work),
                models=(model.ref,),
            )
            return child.call("analyse", task, Analysis, timeout_s=120)

        first = judge(0, paths[0])
        assert first.findings, f"the engine judged nothing: {first.refusals}"
        process, times = psutil.Process(child.pid), []
        for _ in range(ROUNDS):
            before, own = process.cpu_times(), time.process_time()
            for number, path in enumerate(paths):
                judge(number, path)
            after = process.cpu_times()
            spent = after.user + after.system - before.user - before.system + time.process_time() - own
            times.append(spent / len(paths))
        return sorted(times)[len(times) // 2]
    finally:
        child.close()


def measure_whole(paths: list[Path], outbox: Path) -> tuple[float, float]:
    """Return CPU and wall seconds per study through the whole appliance, start and stop included."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    began = time.monotonic()
    outcome = run_files(paths, outbox, modality="", body_part="", settings=None, models=())
    wall = time.monotonic() - began
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    assert outcome.complete, "not every file came back as a result"
    cpu = sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))
    return cpu / len(paths), wall / len(paths)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--columns", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scans, work, outbox = (Path(folder) / name for name in ("scans", "work", "outbox"))
        for place in (scans, work, outbox):
            place.mkdir()
        sizes = [str(n) for n in (options.images, options.rows, options.columns)]
        subprocess.run([sys.executable, "-c", MAKE, str(scans), *sizes], check=True)
        paths, model = sorted(scans.iterdir()), reference_model()
        bare = measure_bare(model, paths)
        analysis = measure_analysis(model, paths, work)
        whole, wall = measure_whole(paths, outbox)
    print(f"{options.images} DX files of {options.rows} x {options.columns}, 16 bit, one thread each; CPU ms per image")
    print(f"bare decode + resize + onnxruntime  {1000 * bare:8.1f}   1.00")
    print(f"analysis (engine child)             {1000 * analysis:8.1f}   {analysis / bare:.2f}   budget 1.20")
    print(f"whole (file to outbox)              {1000 * whole:8.1f}   {whole / bare:.2f}   {1000 * wall:.0f} ms wall")


if __name__ == "__main__":
    main()
