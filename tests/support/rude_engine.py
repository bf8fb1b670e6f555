"""An engine that does harm once per study, by the study's description, and behaves at the next attempt."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import time
from pathlib import Path

from clinic_ai.contract import AnalysisTask, Device, LoadedModel, QuestionTask
from clinic_ai.domain import Analysis, Answer, Finding, Presence, ProducedFile, ValidationFigures
from clinic_ai.errors import InputError, PluginError

UNGUARDED = "The scan of PHANTOM^Number is unsuitable."


class RudeEngine:
    def load(self, base: LoadedModel | None, device: Device) -> None:
        pass

    def use(self, adapter: LoadedModel | None) -> None:
        pass

    def ask(self, task: QuestionTask) -> Answer:
        raise PluginError("It answers no questions.")

    def close(self) -> None:
        pass

    def analyse(self, task: AnalysisTask) -> Analysis:
        out = Path(task.output_directory)
        marker = out.parent.parent / f"done-{task.job_id}"
        harm = task.facts.study_description
        files: tuple[ProducedFile, ...] = ()
        if not marker.exists():
            marker.touch()
            files = self.do_harm(harm, out, task)
            if harm == "words in the version":
                return Analysis(plugin="rude", plugin_version=UNGUARDED, models=task.models)
            if harm == "words in figures":
                return Analysis(plugin="rude", plugin_version="1", models=task.models, findings=(self.finding(task),))
        if harm == "says nothing":
            return Analysis(plugin="rude", plugin_version="1", models=task.models)
        return Analysis(
            plugin="rude",
            plugin_version="1",
            models=task.models,
            remarks=(f"Seen after {harm}." if harm else "Seen.",),
            files=files,
        )

    def finding(self, task: AnalysisTask) -> Finding:
        return Finding(
            condition="pneumonia",
            label="",
            probability=0.5,
            threshold=0.5,
            presence=Presence.UNCERTAIN,
            instance_sha256=task.images[0].sha256,
            validation=ValidationFigures(
                dataset=UNGUARDED, positives=1, negatives=1, auroc=0.5, auroc_low=0.4, auroc_high=0.6
            ),
        )

    def do_harm(self, harm: str, out: Path, task: AnalysisTask) -> tuple[ProducedFile, ...]:
        if harm == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif harm == "hang":
            time.sleep(3600)
        elif harm == "memory":
            hoard = [bytearray(32 << 20) for _ in range(10_000)]
            raise AssertionError(len(hoard))
        elif harm == "flood":
            while True:
                os.write(1, b"x" * 65536)
        elif harm == "exit":
            sys.exit(0)
        elif harm == "raise":
            raise ValueError("with the name PHANTOM^Number in it")
        elif harm == "pickle":
            body = pickle.dumps({"id": 2})
            self.send(struct.pack(">I", len(body)) + body)
            time.sleep(3600)
        elif harm == "oversize":
            self.send(struct.pack(">I", 0xFFFFFFFF))
            time.sleep(3600)
        elif harm == "link":
            (out / "data.json").symlink_to("/etc/passwd")
            return (ProducedFile(name="data.json", role="data", media_type="application/json"),)
        elif harm == "hard link":
            os.link(task.images[0].path, out / "data.json")
            return (ProducedFile(name="data.json", role="data", media_type="application/json"),)
        elif harm == "absent file":
            return (ProducedFile(name="data.json", role="data", media_type="application/json"),)
        elif harm == "path":
            return (
                ProducedFile.model_construct(
                    name="../../state/clinic.db",
                    role="data",
                    media_type="application/json",
                    instance_sha256=None,
                    extent=(0.0, 0.0, 1.0, 1.0),
                    caption="",
                ),
            )
        elif harm == "refuse":
            raise InputError("unsuitable", "This scan is not suitable.", remedy="Send another one.")
        elif harm == "refuse by name":
            raise InputError("unsuitable", UNGUARDED, remedy=f"<b>{UNGUARDED}</b>")
        return ()

    def send(self, frame: bytes) -> None:
        for name in os.listdir("/proc/self/fd"):
            target = os.readlink(f"/proc/self/fd/{name}") if os.path.exists(f"/proc/self/fd/{name}") else ""
            if target.startswith("socket:"):
                os.write(int(name), frame)
                return
