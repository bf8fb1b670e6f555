"""The child that makes small pictures for the terminal, apart from reports: a hostile file ends it and nothing else."""

from __future__ import annotations

import logging
import warnings

from clinic_ai.confinement import confine

if __name__ == "__main__":
    # First of all, before anything heavy is imported: the namespace call needs a single thread.
    CHANNEL, _ = confine()

from clinic_ai.ml.preview import Previewer
from clinic_ai.previewing import PreviewResult, PreviewTask
from clinic_ai.wire import Call, Method, serve

_PREVIEWER = Previewer()


def _preview(task: PreviewTask, _call: Call) -> PreviewResult:
    return _PREVIEWER.make(task)


METHODS = {"preview": Method(PreviewTask, _preview)}

if __name__ == "__main__":
    # pydicom quotes odd values in warnings: names of patients have no business on standard error.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    serve(CHANNEL, METHODS)
