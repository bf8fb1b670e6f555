"""A deidentifier child that does what the file tells it: dies, hangs, lies, links; started by tests only."""

import errno
import hashlib
import os
import signal
import time
from pathlib import Path

from clinic_ai.confinement import confine
from clinic_ai.domain import FileKind, InstanceHeader, PatientIdentity
from clinic_ai.tasks import DeidentifiedFile, DeidentifyResult, DeidentifyTask
from clinic_ai.wire import Call, Method, serve


def deidentify(task: DeidentifyTask, _call: Call) -> DeidentifyResult:
    files = []
    for file in task.files:
        target = Path(task.output_directory) / file.sha256
        target.write_bytes(b"copy of " + file.sha256.encode())
        copy = DeidentifiedFile(
            original_sha256=file.sha256,
            sha256=hashlib.sha256(target.read_bytes()).hexdigest(),
            header=InstanceHeader(kind=FileKind.DICOM, identity=PatientIdentity(patient_id="D-ABC")),
        )
        match Path(file.path).read_bytes():
            case b"KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"HANG":
                time.sleep(600)
            case b"RAISE":
                raise KeyError("private")
            case b"NO ROOM":
                raise OSError(errno.ENOSPC, "full")
            case b"OTHER FILE":
                copy = copy.model_copy(update={"original_sha256": "0" * 64})
            case b"OTHER BYTES":
                target.write_bytes(b"not what was said")
            case b"LINK":
                target.unlink()
                target.symlink_to(file.path)
            case b"NOTHING":
                target.unlink()
            case b"NAMED":
                named = InstanceHeader(kind=FileKind.DICOM, identity=PatientIdentity(patient_name="ROE^JANE"))
                copy = copy.model_copy(update={"header": named})
            case b"STATION":
                copy = copy.model_copy(update={"groups": {"station": "ROOM 1"}})
        files.append(copy)
    return DeidentifyResult(files=tuple(files))


if __name__ == "__main__":
    channel, _ = confine()
    serve(channel, {"deidentify": Method(params=DeidentifyTask, function=deidentify)})
