"""The child that makes pictures, PDF and DICOM objects of one study version."""

from __future__ import annotations

import logging
import warnings

from clinic_ai.confinement import confine

if __name__ == "__main__":
    # First of all, before anything heavy is imported: the namespace call needs a single thread.
    CHANNEL, _ = confine()

from clinic_ai.ml.report import render
from clinic_ai.tasks import RenderResult, RenderTask
from clinic_ai.wire import Call, Method, serve


def _render(task: RenderTask, _call: Call) -> RenderResult:
    return render(task)


METHODS = {"render": Method(RenderTask, _render)}

if __name__ == "__main__":
    # pydicom and highdicom quote odd values in warnings: names of patients have no business on standard error.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    serve(CHANNEL, METHODS)
