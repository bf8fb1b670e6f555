"""Stored objects that are not what their names say."""

from __future__ import annotations

import hashlib

from shelf import Shelf

from clinic_ai.disk.verify import CODE, Verifier


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def damage(store: Shelf, sha256: str) -> None:
    place = store.objects.path(sha256)
    place.chmod(0o600)
    place.write_bytes(b"\0" * place.stat().st_size)


def test_damaged_and_missing_objects_are_told_with_study_and_remedy_until_they_are_back(store: Shelf) -> None:
    study = store.add_study([b"good", b"bad"], results=[b"a map"])
    other = store.add_study([b"bad"])
    damage(store, sha(b"bad"))
    store.objects.path(sha(b"a map")).unlink()
    verifier = Verifier(store.database, store.objects)

    prefixes = sorted({sha(content)[:2] for content in (b"good", b"bad", b"a map")})
    found = verifier.verify(prefixes)
    faults = {fault.sha256: fault for fault in found.faults}
    assert (found.slices, found.objects) == (len(prefixes), 3)
    assert set(faults) == {sha(b"bad"), sha(b"a map")}
    bad, lost = faults[sha(b"bad")], faults[sha(b"a map")]
    assert (bad.fault, bad.studies) == ("damaged", (study, other))
    assert "Send the study again" in bad.remedy
    assert (lost.fault, lost.studies) == ("missing", (study,))
    assert "study retry" in lost.remedy
    assert store.alerts().keys() == {(CODE, study), (CODE, other)}
    assert sorted(store.audited("object.damaged")) == sorted([study, other, study])

    assert not store.objects.has(sha(b"bad"))  # so that no job looks at it, and a resend stores it anew
    store.keep(b"bad")
    verifier.withdraw_repaired()
    assert store.alerts().keys() == {(CODE, study)}
    store.keep(b"a map")
    assert verifier.verify([sha(b"a map")[:2]], for_s=0.0).faults == ()
    assert store.alerts() == {}


def test_what_the_disk_cannot_read_is_told_and_the_rest_is_verified(store: Shelf) -> None:
    study = store.add_study([b"one"])
    place = store.objects.path(sha(b"one"))
    place.unlink()
    place.symlink_to("/proc/self/mem")  # its first page is not mapped: the kernel says EIO, as of a bad sector
    with_same_prefix = next(
        content for number in range(100_000) if sha(content := b"%d" % number)[:2] == sha(b"one")[:2]
    )
    store.add_study([with_same_prefix])
    verifier = Verifier(store.database, store.objects)
    found = verifier.verify([sha(b"one")[:2]])
    (fault,) = found.faults
    assert (found.objects, fault.fault, fault.studies) == (2, "unreadable", (study,))
    assert "cannot be read" in fault.sentence
    assert store.alerts().keys() == {(CODE, study)}
    assert not store.objects.has(sha(b"one"))  # so that a resend stores it anew
    store.keep(b"one")
    verifier.withdraw_repaired()
    assert store.alerts() == {}


def test_what_retention_removed_is_not_missing(store: Shelf) -> None:
    study = store.add_study([b"one"])
    store.objects.path(sha(b"one")).unlink()
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE studies SET originals_removed_at = 5.0")
    store.add_version(study, "UNROUTED")  # late images: the study asks for the others
    found = Verifier(store.database, store.objects).verify([sha(b"one")[:2]])
    assert found.faults == ()
    assert store.alerts() == {}


def test_what_nobody_needs_is_not_read(store: Shelf) -> None:
    (orphan,) = store.keep(b"orphan")
    damage(store, orphan)
    assert Verifier(store.database, store.objects).verify([orphan[:2]]).objects == 0
    assert store.objects.has(orphan)
