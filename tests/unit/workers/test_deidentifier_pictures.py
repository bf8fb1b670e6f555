"""PNG and JPEG copies hold the picture, the same pixels the same way up, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import marked
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from clinic_ai.ml.images import load_grey


def picture(mode: str = "L") -> Image.Image:
    ramp = np.arange(40 * 24, dtype=np.uint16).reshape(24, 40)
    if mode == "I;16":
        return Image.fromarray(ramp * 60)
    return Image.fromarray((ramp % 251).astype(np.uint8)).convert(mode)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010E] = f"{marked.MARK} description"
    found[0x9286] = f"{marked.MARK} comment"
    return found


def png(mode: str = "L", orientation: int = 1) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", marked.MARK)
    info.add_text("Title", marked.MARK * 200, zip=True)
    info.add_itxt("Patient", f"Ärztin {marked.MARK}")
    stream = io.BytesIO()
    picture(mode).save(stream, "PNG", pnginfo=info, exif=exif(orientation), icc_profile=marked.MARK.encode() * 40)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def jpeg(mode: str = "L", orientation: int = 1, **options: object) -> bytes:
    stream = io.BytesIO()
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{marked.MARK}</x:xmpmeta>".encode()
    picture(mode).save(stream, "JPEG", comment=marked.MARK, exif=exif(orientation), xmp=xmp, **options)
    return stream.getvalue()


def copied(content: bytes, folder: Path) -> bytes:
    path = folder / "picture"
    path.write_bytes(content)
    said, copy = marked.copy_of(path, folder / "out")
    assert said.problem is None, said.problem
    assert [flag.code for flag in said.flags] == ["burned_in_possible"]
    result = copy.read_bytes()
    assert marked.traces(result) == []
    assert b"exif" not in result.lower() or b"Exif\0\0II" in result or b"eXIfII" in result
    return result


def same(first: bytes, second: bytes) -> bool:
    """Return whether both decode to the same picture the same way up."""
    one, two = (ImageOps.exif_transpose(Image.open(io.BytesIO(content))) for content in (first, second))
    return one.mode == two.mode and np.array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_keeps_its_pixels_and_loses_the_rest(tmp_path: Path, mode: str) -> None:
    original = png(mode)
    assert marked.traces(original)
    copy = copied(original, tmp_path)
    assert same(original, copy)
    kinds = {b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tIME"}
    assert not [kind for kind in kinds if kind in copy]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_keeps_its_pixels_and_loses_the_rest(tmp_path: Path, mode: str, progressive: bool) -> None:
    original = jpeg(mode, progressive=progressive, restart_marker_blocks=2)
    assert marked.traces(original)
    assert same(original, copied(original + marked.MARK.encode(), tmp_path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("make", [png, jpeg])
def test_it_stays_the_way_up_it_was(tmp_path: Path, make, orientation: int) -> None:  # type: ignore[no-untyped-def]
    original = make("L", orientation)
    copy = copied(original, tmp_path)
    assert same(original, copy)
    (tmp_path / "copy").write_bytes(copy)
    shown = load_grey(tmp_path / "copy").pixels
    assert np.array_equal(shown, load_grey(tmp_path / "picture").pixels)


def test_a_png_with_unknown_chunks_a_palette_it_does_not_use_and_more_behind_its_pixels(tmp_path: Path) -> None:
    mark = marked.MARK.encode()
    plain = io.BytesIO()
    picture("RGB").save(plain, "PNG")
    content = plain.getvalue()
    at = content.index(b"IDAT") - 4
    length = struct.unpack_from(">I", content, at)[0]
    pixels = content[at + 8 : at + 8 + length]
    odd = chunk(b"prVt", mark) + chunk(b"PLTE", (mark + b"xx")[:9]) + chunk(b"tIME", mark) + chunk(b"sBIT", mark * 3)
    content = content[:at] + odd + chunk(b"IDAT", pixels + mark) + chunk(b"IEND", b"") + mark
    assert same(plain.getvalue(), copied(content, tmp_path))


def test_a_clean_picture_is_its_own_copy(tmp_path: Path) -> None:
    """So datasets of such pictures stay what they were."""
    for form in ("PNG", "JPEG"):
        stream = io.BytesIO()
        picture().save(stream, form)
        assert copied(stream.getvalue(), tmp_path) == stream.getvalue()


def test_a_bomb(tmp_path: Path) -> None:
    stream = io.BytesIO()
    picture().save(stream, "PNG")
    content = stream.getvalue()
    at = content.index(b"IDAT") - 4
    bomb = content[:at] + chunk(b"IDAT", zlib.compress(bytes(64 << 20))) + chunk(b"IEND", b"")
    (tmp_path / "bomb").write_bytes(bomb)
    said, copy = marked.copy_of(tmp_path / "bomb", tmp_path / "out")
    assert said.problem is not None
    assert said.problem.code == "damaged"
    assert not copy.exists()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from([png(), jpeg()]))
def test_damage_anywhere_gives_a_clean_copy_or_none(tmp_path: Path, data: st.DataObject, form: bytes) -> None:
    content = bytearray(form)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(3, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content[: data.draw(st.integers(8, len(content)))])
    said, copy = marked.copy_of(path, tmp_path / "out")
    assert (said.problem is None) == copy.exists()
    if said.problem is None:
        assert marked.MARK.lower().encode() not in copy.read_bytes().lower()
        copy.unlink()
