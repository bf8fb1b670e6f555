"""Pictures: the heat lies where it was measured, and the scan stays visible under it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clinic_ai.domain import FileKind, InstanceHeader
from clinic_ai.errors import InputError
from clinic_ai.ml.images import GreyImage
from clinic_ai.ml.pictures import blend, draw_overlay, draw_scan, load_heatmap, place
from clinic_ai.tasks import RenderImage

WHOLE = (0.0, 0.0, 1.0, 1.0)


def grey(rows: int = 120, columns: int = 90, level: float = 0.5) -> GreyImage:
    return GreyImage(np.full((rows, columns), level, dtype=np.float32), None, (), (rows, columns))


def saved(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path, format="PNG")
    return path


def test_no_heat_leaves_the_scan_as_it_is() -> None:
    scan = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    mixed = blend(scan, np.zeros_like(scan))
    assert np.array_equal(mixed, np.repeat(np.rint(scan * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2))


def test_heat_is_coloured_and_hotter_is_lighter_on_any_grey() -> None:
    for level in (0.0, 0.5, 1.0):
        heat = np.linspace(0.25, 1.0, 32, dtype=np.float32)[np.newaxis]
        mixed = blend(np.full_like(heat, level), heat)[0].astype(int)
        assert (mixed.max(axis=1) - mixed.min(axis=1) > 20).all()
        chroma = mixed - mixed.mean(axis=1, keepdims=True)
        assert abs(chroma[-1]).max() > abs(chroma[0]).max()


def test_anatomy_stays_visible_under_the_strongest_heat() -> None:
    hot = np.ones((1, 2), dtype=np.float32)
    mixed = blend(np.array([[0.0, 1.0]], dtype=np.float32), hot).astype(int)
    assert (mixed[0, 1] - mixed[0, 0] >= 90).all()


def test_heat_is_laid_into_its_extent_and_nowhere_else() -> None:
    placed = place(np.ones((4, 4), dtype=np.float32), (0.25, 0.5, 0.75, 1.0), (40, 20))
    expected = np.zeros((40, 20), dtype=np.float32)
    expected[10:30, 10:20] = 1
    assert np.array_equal(placed, expected)


def test_a_heat_map_keeps_its_orientation(tmp_path: Path) -> None:
    heat = np.zeros((8, 8), dtype=np.uint8)
    heat[0, 7] = 255  # top right
    placed = place(load_heatmap(saved(tmp_path / "h", heat)), WHOLE, (80, 80))
    assert placed[:20, 60:].mean() > 10 * placed[40:, :40].mean()
    assert placed[:20, 60:].mean() > 0.1


@pytest.mark.parametrize("extent", [(0.5, 0.0, 0.5, 1.0), (0.0, 0.9, 1.0, 0.1)])
def test_an_extent_that_covers_nothing_is_refused(extent: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="no part"):
        place(np.ones((4, 4), dtype=np.float32), extent, (40, 20))


def test_eight_and_sixteen_bits_mean_the_same_heat(tmp_path: Path) -> None:
    eight = load_heatmap(saved(tmp_path / "8", np.array([[0, 51, 255]], dtype=np.uint8)))
    sixteen = load_heatmap(saved(tmp_path / "16", np.array([[0, 51 * 257, 65535]], dtype=np.uint16)))
    assert np.allclose(eight, [[0, 0.2, 1]])
    assert np.allclose(eight, sixteen)


@given(st.binary(max_size=300))
def test_rubbish_is_no_heat_map(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes) -> None:
    path = tmp_path_factory.mktemp("h") / "h"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + rubbish)
    with pytest.raises(InputError):
        load_heatmap(path)


def test_the_overlay_is_the_scan_with_a_legend_beside_it(tmp_path: Path) -> None:
    heat = saved(tmp_path / "h", np.zeros((4, 4), dtype=np.uint8))
    image = RenderImage(
        path="unused", sha256="a" * 64, header=InstanceHeader(kind=FileKind.PNG), heatmap_path=str(heat), extent=WHOLE
    )
    scan = draw_scan(grey(), tmp_path, "scan.png")
    overlay = draw_overlay(grey(), image, tmp_path, "overlay.png")
    assert (scan.width, scan.height, overlay.height) == (90, 120, 120)
    assert overlay.width > scan.width
    pixels = np.asarray(Image.open(tmp_path / "overlay.png")).astype(int)
    assert (pixels[:, :90] == np.asarray(Image.open(tmp_path / "scan.png"))[..., np.newaxis]).all()
    legend = pixels[:, 90:]
    assert (legend.max(axis=2) - legend.min(axis=2)).max() > 60
