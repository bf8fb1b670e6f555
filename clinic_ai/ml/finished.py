"""The result of a finished run, kept beside its model.

Between the end of a training and the entry of its candidate the daemon examines it, and may be killed there. The run is
then begun again, and gives the same result at once: the model is not made a second time, so its digest stays.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from clinic_ai.contract import TrainingResult
from clinic_ai.errors import ModelError
from clinic_ai.ml.checkpoints import write_durably
from clinic_ai.ml.model_files import open_model

FILE = "result.json"


def keep_result(directory: Path, fingerprint: str, result: TrainingResult) -> TrainingResult:
    """Note in the run ``directory`` how a run of this ``fingerprint`` ended; its model is whole by now. Return it."""
    digest = open_model(Path(result.model_directory)).ref.digest
    kept = {"fingerprint": fingerprint, "model": digest, "result": result.model_dump(mode="json")}
    write_durably(directory / FILE, json.dumps(kept).encode())
    return result


def kept_result(directory: Path, fingerprint: str) -> TrainingResult | None:
    """Return how a run of this ``fingerprint`` ended in ``directory``, None unless it did and its model is whole."""
    try:
        kept = json.loads((directory / FILE).read_bytes())
        if kept["fingerprint"] != fingerprint:
            return None
        result = TrainingResult.model_validate(kept["result"])
        model = open_model(Path(result.model_directory))
        whole = model.ref.digest == kept["model"] and all(
            hashlib.sha256((Path(model.directory) / file.name).read_bytes()).hexdigest() == file.sha256
            for file in model.manifest.files
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError, ModelError):
        return None
    return result if whole else None
