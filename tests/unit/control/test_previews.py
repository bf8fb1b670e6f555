"""Pictures of studies over the control socket, made by the real child: what is seen, by whom, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import deadly_previewer
import httpx
import numpy as np
import pytest
from control_room import Room, control_room
from harness import wait_until
from pictured import add_heat, add_outlines, add_pictures, picture_of, write_bar
from pydicom.data import get_testdata_file

from clinic_ai.control.preview_client import PreviewClient
from clinic_ai.control.preview_views import PreviewView
from clinic_ai.control.views import Role
from clinic_ai.domain import GuardAction, InstanceHeader
from clinic_ai.errors import ChildDied, ChildMisbehaved, ChildTimedOut, ClinicError, Conflict, NotAllowed, NotFound
from clinic_ai.results import previews
from clinic_ai.workers import parser
from clinic_ai_xray.phantom import draw_chest, write_dx


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with control_room(tmp_path_factory.mktemp("r") / "h") as made:
        yield made


@pytest.fixture(scope="module")
def bars(room: Room, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CT of four slices; the place of a bar of bone says which."""
    folder = tmp_path_factory.mktemp("bars")
    return add_pictures(room, [write_bar(folder / f"{number}.dcm", number) for number in range(1, 5)])


@pytest.fixture(autouse=True)
def as_before(room: Room) -> Iterator[None]:
    before = room.shared.settings
    yield
    room.shared.settings = before


def look(
    room: Room, study_id: str, *, columns: int = 16, rows: int = 16, monitor: bool = False, **wish: object
) -> PreviewView:
    with PreviewClient(room.home, monitor=monitor) as client:
        return client.preview(study_id, columns=columns, rows=rows, **wish)


def pixels(view: PreviewView) -> np.ndarray:
    return np.frombuffer(view.rgb(), dtype=np.uint8).reshape(view.rows, view.columns, 3)


# ---------------------------------------------------------------- what is seen


def test_each_slice_is_the_one_that_was_asked_for(room: Room, bars: str) -> None:
    seen = [look(room, bars, image=image) for image in range(1, 5)]
    assert [int(pixels(view)[8, :, 0].argmax()) // 2 for view in seen] == [1, 2, 3, 4]
    assert [view.position_mm for view in seen] == [5.0, 10.0, 15.0, 20.0]
    assert {(view.image, view.images) for view in seen} == {(1, 4), (2, 4), (3, 4), (4, 4)}
    assert seen[0].edges == ("A", "L", "P", "R")
    assert seen[0].line == "CT, 4 slices, axial, 5.0 mm apart, regular"
    assert picture_of(seen[1])[1:7] == ["   .%%.         "] * 6


def test_the_shape_is_kept_with_the_spacing_and_black_is_left_around(room: Room, tmp_path: Path) -> None:
    flat = add_pictures(room, [write_bar(tmp_path / "flat.dcm", 1, spacing=(0.5, 1.0))])
    seen = look(room, flat, preset="full", columns=32, rows=32)
    bright = np.argwhere(pixels(seen)[..., 0] > 128)
    # 64 rows of 0.5 mm and 64 columns of 1 mm: half as high as wide; the bar is of rows 8 to 55, columns 8 to 15.
    assert (bright.min(axis=0).tolist(), bright.max(axis=0).tolist()) == ([10, 4], [21, 7])


def test_a_window_by_name_by_numbers_and_of_the_file(room: Room, bars: str) -> None:
    names = look(room, bars)
    assert names.presets == ("full", "soft", "lung", "bone", "brain")
    assert (names.window.centre, names.window.width, names.window.unit) == (0, 2000, "HU")
    lung = look(room, bars, preset="lung")
    assert (lung.window.centre, lung.window.width) == (-600, 1500)
    assert pixels(lung)[0, 0, 0] == round(255 * (-1000 - (-600 - 750)) / 1500)
    own = look(room, bars, window=(1000.0, 100.0), columns=64, rows=64)
    assert pixels(own)[32, 10, 0] == 129  # 1000 HU is a little above the middle of 950 … 1049
    assert pixels(own)[0, 0, 0] == 0
    full = look(room, bars, preset="full")
    assert full.window.centre - full.window.width / 2 == pytest.approx(-1000, abs=1)


def test_frames_of_a_cine_differ_and_are_in_colour(room: Room) -> None:
    cine = add_pictures(room, [Path(get_testdata_file("examples_ybr_color.dcm"))])
    first, last = look(room, cine, image=1, columns=60, rows=40), look(room, cine, image=30, columns=60, rows=40)
    assert (first.images, first.frames, last.frame) == (30, 30, 30)
    assert first.colour
    assert first.window is None
    assert first.presets == ("full",)
    assert not np.array_equal(pixels(first), pixels(last))
    strongest = pixels(first).max(axis=2).astype(int) - pixels(first).min(axis=2)
    assert strongest.max() > 30  # the Doppler's colours are colours here too


def test_a_phantom_looks_like_a_chest(room: Room, tmp_path: Path) -> None:
    write_dx(tmp_path / "chest.dcm", draw_chest(256, 256, seed=7), seed=7)
    seen = look(room, add_pictures(room, [tmp_path / "chest.dcm"]), columns=30, rows=30)
    levels = pixels(seen)[..., 0].astype(int)
    inside = levels[:, levels.any(axis=0)]
    rows, columns = inside.shape
    lungs = inside[rows // 3 : rows // 2, [columns // 4, -columns // 4]].mean()
    spine = inside[rows // 3 : rows // 2, columns // 2].mean()
    assert spine - lungs > 50
    assert seen.edges[1] == "L"  # the left side of the patient is on the right


def test_what_no_decoder_takes_is_said_in_a_sentence(room: Room, tmp_path: Path) -> None:
    whole = write_bar(tmp_path / "whole.dcm", 1)
    (tmp_path / "cut.dcm").write_bytes(whole.read_bytes()[:-4000])
    study = add_pictures(room, [tmp_path / "cut.dcm"], headers=[_header_of(whole)])
    with pytest.raises(ClinicError) as refused:
        look(room, study)
    assert refused.value.message.startswith("The pixels cannot be decoded")
    assert refused.value.remedy


def _header_of(path: Path) -> InstanceHeader:
    with path.open("rb") as file:
        return parser.read_header(file, path.stat().st_size, 400_000_000)


# ---------------------------------------------------------------- who may see it


def test_technicians_and_the_monitor_socket_see_no_picture(
    room: Room, bars: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotAllowed):
        look(room, bars, monitor=True)
    monkeypatch.setattr("clinic_ai.control.door.role_of", lambda *_: Role.TECHNICIAN)
    with pytest.raises(NotAllowed):
        look(room, bars)


def test_what_is_not_there_is_not_found(room: Room, bars: str) -> None:
    with pytest.raises(NotFound):
        look(room, "S-20260101-AAAAAAAA")
    with pytest.raises(NotFound, match="no stack 2"):
        look(room, bars, stack=2)
    with pytest.raises(NotFound, match="no image 5"):
        look(room, bars, image=5)
    with pytest.raises(NotFound, match="no image to show"):
        look(room, add_pictures(room, [Path(__file__)], headers=[InstanceHeader(kind="dicom", modality="SR")]))


@pytest.mark.parametrize(
    "query",
    [
        "columns=201",
        "rows=3",
        "columns=nan",
        "image=0",
        "stack=-1",
        "preset=liver",
        "centre=nan&width=2",
        "centre=1",
        "width=0&centre=0",
        "image=x",
    ],
)
def test_rubbish_is_refused_with_a_problem(room: Room, bars: str, query: str) -> None:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(room.home.control_socket)), base_url="http://clinic-ai"
    ) as client:
        answer = client.get(f"/v1/studies/{bars}/preview?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_removed_originals_are_said(room: Room, tmp_path: Path) -> None:
    study = add_pictures(room, [write_bar(tmp_path / "gone.dcm", 3, spacing=(2.0, 2.0))])
    sha256 = room.previews.stacks(study).stacks[0].stack.planes[0].sha256
    (room.home.objects / sha256[:2] / sha256[2:]).unlink()
    with pytest.raises(Conflict, match="not stored any more"):
        look(room, study)


# ---------------------------------------------------------------- heat maps


def test_a_heat_map_is_laid_over_once_its_finding_is_released(room: Room, tmp_path: Path) -> None:
    study = add_pictures(room, [write_bar(tmp_path / "bar.dcm", 2)])
    assert look(room, study).overlays == ()
    add_heat(room, study)
    plain, hot = look(room, study), look(room, study, overlay=True)
    assert plain.overlays == hot.overlays == ("heat map: Pneumonia",)
    assert (plain.overlay, hot.overlay) == ("", "heat map: Pneumonia")
    assert np.array_equal(pixels(plain)[9:], pixels(hot)[9:])
    assert (pixels(hot)[:7, :, 0] > pixels(plain)[:7, :, 0]).any()


@pytest.mark.parametrize(
    ("released", "action"), [((), GuardAction.ALLOW), (("f_2",), GuardAction.ALLOW), (("f_1",), GuardAction.HOLD)]
)
def test_a_heat_map_whose_finding_is_withheld_is_never_seen(
    room: Room, tmp_path: Path, released: tuple[str, ...], action: GuardAction
) -> None:
    study = add_pictures(room, [write_bar(tmp_path / "bar.dcm", 2)])
    plain = look(room, study)
    add_heat(room, study, released=released, action=action)
    seen = look(room, study, overlay=True)
    assert (seen.overlay, seen.overlays) == ("", ())
    assert "not all of its findings were released" in seen.overlay_note
    assert seen.pixels == plain.pixels


@pytest.mark.parametrize("released", [("f_1",), ()])
def test_outlines_are_drawn_on_their_slice_if_the_finding_was_released(
    room: Room, tmp_path: Path, released: tuple[str, ...]
) -> None:
    study = add_pictures(room, [write_bar(tmp_path / f"{number}.dcm", number) for number in range(1, 5)])
    add_outlines(room, study, released=released)
    plain, seen = (look(room, study, columns=64, rows=64, image=2, overlay=overlay) for overlay in (False, True))
    changed = (pixels(plain) != pixels(seen)).any(axis=-1)
    if not released:
        assert (seen.overlays, seen.overlay, changed.any()) == ((), "", False)
        return
    assert plain.overlays == seen.overlays == ("outlines: Lung nodule",)
    assert (plain.overlay, seen.overlay) == ("", "outlines: Lung nodule")
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (19, 40, 29, 50)
    assert not changed[20:40, 30:50].any(), "what is outlined stays visible"
    other = look(room, study, columns=64, rows=64, image=3, overlay=True)
    assert other.overlay == "", "nothing is drawn on this slice"


# ---------------------------------------------------------------- the child


def test_one_warm_child_serves_all_and_ends_when_nobody_looks(room: Room, bars: str) -> None:
    look(room, bars)
    first = _pid(room)
    look(room, bars, image=2)
    assert _pid(room) == first
    room.previews.child.end_if_idle(3600)
    assert _pid(room) == first
    room.previews.child.end_if_idle(0)
    assert _pid(room) is None
    look(room, bars)
    assert _pid(room) not in {None, first}


def _pid(room: Room) -> int | None:
    return room.previews.child.pid


@pytest.fixture
def deadly(room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next child does what the file tells it."""
    warm = room.previews.child
    warm.close()
    monkeypatch.setenv("PYTHONPATH", str(Path(deadly_previewer.__file__).parent))
    monkeypatch.setattr(warm, "spec", replace(warm.spec, module="deadly_previewer"))
    yield
    warm.close()


@pytest.mark.usefixtures("deadly")
def test_a_hostile_file_ends_the_child_once_and_nothing_else(
    room: Room, bars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer, liar, sleeper = (_hostile(room, tmp_path, words) for words in ("KILL ME", "LIE", "HANG ME"))
    with pytest.raises(ChildDied) as told:
        look(room, killer)
    assert told.value.message == (
        f"Reading the pixels of image 1 of stack 1 of study {killer} ended the process that tried; "
        "nothing else was harmed."
    )
    assert _pid(room) is None
    with pytest.raises(ChildDied):
        look(room, killer)
    assert _pid(room) is None  # it was said without another try
    with pytest.raises(ChildMisbehaved, match="Reading the pixels"):
        look(room, liar)
    assert look(room, bars).image == 1
    monkeypatch.setattr(previews, "PREVIEW_TIMEOUT_S", 0.3)
    with pytest.raises(ChildTimedOut, match="Reading the pixels"):
        look(room, sleeper)
    assert _pid(room) is None


def _hostile(room: Room, folder: Path, words: str) -> str:
    """Store a study of one file that has these words behind its pixels."""
    path = write_bar(folder / f"{words}.dcm", 1)
    header = _header_of(path)
    path.write_bytes(path.read_bytes() + words.encode())
    return add_pictures(room, [path], headers=[header])


def test_a_newer_request_takes_the_place_of_one_that_waits(room: Room, bars: str) -> None:
    said: list[ClinicError] = []
    with room.previews._turns.turn("somebody else"):
        older = threading.Thread(target=lambda: said.append(_refusal(room, bars)))
        older.start()
        wait_until(lambda: bool(room.previews._turns._waiting), "the older request")
        newer = threading.Thread(target=look, args=(room, bars), kwargs={"image": 3, "reader": "mine"})
        newer.start()
        older.join(timeout=20)
        assert [error.message for error in said] == ["A newer picture was asked for instead of this one."]
    newer.join(timeout=20)
    assert not newer.is_alive()


def _refusal(room: Room, study_id: str) -> ClinicError:
    with pytest.raises(Conflict) as refused:
        look(room, study_id, reader="mine")
    return refused.value
