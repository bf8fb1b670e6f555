"""A parser child that does what the file tells it: dies, hangs, lies, raises; started by tests only."""

import os
import signal
import time
from pathlib import Path

from clinic_ai.confinement import confine
from clinic_ai.domain import FileKind, InstanceHeader
from clinic_ai.tasks import ParsedFile, ParseResult, ParseTask
from clinic_ai.wire import Call, Method, serve


def parse(task: ParseTask, _call: Call) -> ParseResult:
    files = []
    for path in task.paths:
        match Path(path).read_bytes():
            case b"KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"HANG":
                Path(path).with_suffix(".hangs").touch()
                time.sleep(600)
            case b"RAISE":
                raise KeyError("private")
            case b"LIE":
                return ParseResult(files=(ParsedFile(path="/etc/passwd"),))
        files.append(ParsedFile(path=path, header=InstanceHeader(kind=FileKind.DICOM)))
    return ParseResult(files=tuple(files))


if __name__ == "__main__":
    channel, _ = confine()
    serve(channel, {"parse": Method(params=ParseTask, function=parse)})
