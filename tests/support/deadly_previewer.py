"""A previewer that a file can kill, lie with, or hang: what a decoder taken over by a hostile file would do."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

from clinic_ai.confinement import confine

if __name__ == "__main__":
    CHANNEL, _ = confine()

from clinic_ai.previewing import PreviewResult, PreviewTask
from clinic_ai.wire import Call, Method, serve
from clinic_ai.workers import previewer


def _preview(task: PreviewTask, call: Call) -> PreviewResult:
    content = Path(task.path).read_bytes()
    if b"KILL ME" in content:
        os.abort()
    if b"HANG ME" in content:
        time.sleep(600)
    if b"LIE" in content:
        return PreviewResult(pixels=base64.b64encode(b"short").decode())
    return previewer._preview(task, call)


if __name__ == "__main__":
    serve(CHANNEL, {"preview": Method(PreviewTask, _preview)})
