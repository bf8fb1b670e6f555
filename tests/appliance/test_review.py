"""From a scan to a signed report: a real daemon, the command line, and the files in the outbox."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pydicom
import pytest
from harness import QUICK, Daemon, rows, wait_until
from pypdf import PdfReader
from rendering import assert_valid_dicom, pdf_text, sr_texts
from scans import write_ct_slice

from clinic_ai.control.client import Client
from clinic_ai.control.review_client import ReviewClient
from clinic_ai.control.review_views import AcceptReview
from clinic_ai.errors import Conflict, NotAllowed
from clinic_ai.home import Home
from clinic_ai.store import audit
from clinic_ai.store.database import Database

SIGNER = "Dr. Ada Example"
SETTINGS = QUICK + f'\n[review]\nreviewers = ["{SIGNER}"]\n'


def clinic_ai(home: Home, *arguments: str, status: int = 0, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "clinic_ai", *arguments, "--home", str(home.path)],
        capture_output=True,
        text=True,
        timeout=60,
        input=stdin,
    )
    assert done.returncode == status, done.stderr + done.stdout
    return done.stdout + done.stderr


def reported(home: Home, daemon: Daemon, seed: int = 1) -> tuple[str, str]:
    """Process a scan; return the ids of its study and artefact."""
    write_ct_slice(home.path / "ct.dcm", seed=seed)
    (home.path / "ct.dcm").rename(home.inbox / f"ct-{seed}.dcm")
    daemon.wait_for("delivery.sent")
    [row] = rows(home, "SELECT study_id, artefact_id FROM artefacts ORDER BY created_at DESC LIMIT 1")
    return row["study_id"], row["artefact_id"]


def states(home: Home) -> list[str]:
    return [row["state"] for row in rows(home, "SELECT state FROM artefacts ORDER BY created_at")]


def test_accepted_amended_and_rejected(home: Home, start: Callable[[], Daemon]) -> None:
    home.clinic_toml.write_text(SETTINGS)
    daemon = start()
    study, artefact = reported(home, daemon)
    assert artefact in clinic_ai(home, "review", "list")
    assert "SIGN" not in clinic_ai(home, "review", "show", artefact)
    clinic_ai(home, "review", "accept", artefact, "--yes", status=4)  # whose name?
    clinic_ai(home, "review", "accept", artefact, "--as", "Dr. Nobody", "--yes", status=4)
    assert states(home) == ["PRELIMINARY"]

    said = clinic_ai(home, "review", "accept", artefact, "--as", SIGNER, "--yes", "--consent")
    assert SIGNER in said
    daemon.wait_for("delivery.sent")
    assert states(home) == ["SUPERSEDED", "FINAL"]
    signed = home.outbox / study / "v1-signed-1"
    assert (home.outbox / study / "v1" / "report.pdf").is_file()  # what was delivered is never changed

    result = json.loads((signed / "result.json").read_text())
    assert result["status"] == "final"
    assert result["signed"]["name"] == SIGNER
    assert not [mark for mark in result["guard"]["marks"] if "no named person" in mark.lower()]
    text = pdf_text(signed)
    assert f"signed by {SIGNER}" in text
    assert "Preliminary" not in text
    assert PdfReader(signed / "report.pdf").metadata.get("/Keywords") == "final"  # type: ignore[union-attr]
    report = pydicom.dcmread(signed / "report.sr.dcm")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == ("COMPLETE", "VERIFIED", "FINAL")
    assert str(report.VerifyingObserverSequence[0].VerifyingObserverName) == SIGNER
    assert report.VerifyingObserverSequence[0].VerificationDateTime[:8] == report.ContentDate
    first = pydicom.dcmread(home.outbox / study / "v1" / "report.sr.dcm")
    [predecessor] = report.PredecessorDocumentsSequence
    [named] = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID != report.SOPInstanceUID
    assert (first.PreliminaryFlag, first.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert not any("Preliminary" in text for text in sr_texts(report))
    assert_valid_dicom(signed / "report.sr.dcm")

    # The same again is the same; another decision is refused.
    clinic_ai(home, "review", "reject", artefact, "--as", SIGNER, "--reason", "no", "--yes", status=6)

    # A signed report can be wrong: it is amended, and the words go through the guard.
    [final] = rows(home, "SELECT artefact_id FROM artefacts WHERE state = 'FINAL'")
    words = "There is no finding of note in these images."
    name = rows(home, "SELECT identity FROM studies")[0]["identity"]
    patient = json.loads(name)["patient_name"].split("^")[0]
    for bad in (f"{patient} is well.", "Call 555-123-4567 at once.", "the lung the lung " * 40, "Nor\u202emal lungs."):
        refused = clinic_ai(
            home, "review", "amend", final["artefact_id"], "--as", SIGNER, "--text", "-", "--yes", status=1, stdin=bad
        )
        assert "guard" in refused
        assert bad not in refused
    assert states(home) == ["SUPERSEDED", "FINAL"]
    clinic_ai(home, "review", "amend", final["artefact_id"], "--as", SIGNER, "--text", "-", "--yes", stdin=words)
    daemon.wait_for("delivery.sent")
    assert states(home) == ["SUPERSEDED", "SUPERSEDED", "FINAL"]
    assert words in pdf_text(home.outbox / study / "v1-signed-2")
    assert words in (home.outbox / study / "v1-signed-2" / "result.json").read_text()
    assert_valid_dicom(home.outbox / study / "v1-signed-2" / "report.sr.dcm")
    assert f"+[n_1] {words}" in clinic_ai(home, "review", "show", final["artefact_id"])

    # A rejected one goes nowhere, and a new daemon changes nothing of it.
    _, other = reported(home, daemon, seed=2)
    clinic_ai(home, "review", "reject", other, "--as", SIGNER, "--reason", "not my patient", "--yes")
    assert states(home)[-1] == "REJECTED"
    assert daemon.stop() == 0
    decided = [(row["decision"], row["reviewer"]) for row in rows(home, "SELECT * FROM reviews ORDER BY decided_at")]
    assert decided == [("accept", SIGNER), ("amend", SIGNER), ("reject", SIGNER)]
    actions = [row["action"] for row in rows(home, "SELECT action FROM audit")]
    assert {"review.accept", "review.amend", "review.reject", "artefact.final", "artefact.rejected"} <= set(actions)
    database = Database(home.database)
    with database.read() as connection:
        assert audit.first_break(connection) is None
    database.close()
    everything = json.dumps([dict(row) for row in rows(home, "SELECT details FROM audit")])
    assert words not in everything


def test_root_and_the_daemons_user_sign_nothing_in_their_own_name(home: Home, start: Callable[[], Daemon]) -> None:
    daemon = start()
    _, artefact = reported(home, daemon)
    with ReviewClient(home) as client:
        digest = client.review(artefact).digest
        with pytest.raises(NotAllowed, match="no named person"):
            client.accept(artefact, AcceptReview(digest=digest))
        with pytest.raises(NotAllowed, match="no named person"):
            client.accept(artefact, AcceptReview(digest=digest, reviewer="root"))
    assert states(home) == ["PRELIMINARY"]


def test_the_monitor_socket_tells_no_words_and_signs_nothing(home: Home, start: Callable[[], Daemon]) -> None:
    home.clinic_toml.write_text(SETTINGS)
    daemon = start()
    _, artefact = reported(home, daemon)
    with ReviewClient(home) as client:
        digest = client.review(artefact).digest
    with ReviewClient(home, monitor=True) as client:
        [row] = client.reviews(10)
        assert row.artefact_id == artefact
        with pytest.raises(NotAllowed):
            client.review(artefact)
        with pytest.raises(NotAllowed):
            client.accept(artefact, AcceptReview(digest=digest, reviewer=SIGNER))
    with ReviewClient(home) as client, pytest.raises(Conflict):
        client.accept(artefact, AcceptReview(digest="0" * 64, reviewer=SIGNER))  # nobody was shown that
    assert states(home) == ["PRELIMINARY"]


def test_a_daemon_killed_after_the_decision_still_makes_the_report(home: Home, start: Callable[[], Daemon]) -> None:
    home.clinic_toml.write_text(SETTINGS)
    daemon = start()
    study, artefact = reported(home, daemon)
    clinic_ai(home, "review", "accept", artefact, "--as", SIGNER, "--yes")
    daemon.kill()
    start()
    wait_until((home.outbox / study / "v1-signed-1" / "result.json").is_file, "the signed report")
    wait_until(lambda: states(home) == ["SUPERSEDED", "FINAL"], "the final artefact")
    with Client(home) as client:
        events = [row["action"] for row in rows(home, "SELECT action FROM audit")]
        assert events.count("review.accept") == events.count("artefact.final") == 1
        assert client.status().artefacts["FINAL"] == 1
    assert re.search("final", (home.outbox / study / "v1-signed-1" / "result.json").read_text())
