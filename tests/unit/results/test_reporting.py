"""What a report is made of."""

from __future__ import annotations

from clinic_ai.domain import Analysis, Finding, Presence, ProducedFile, StoredFile
from clinic_ai.results.rendering import heatmap_of

IMAGE = "a" * 64


def analysis(plugin: str, *, heatmap: bool = True) -> Analysis:
    name = "heatmap.png" if heatmap else None
    finding = Finding(
        condition="pneumonia",
        label="Pneumonia",
        probability=0.5,
        threshold=0.5,
        presence=Presence.UNCERTAIN,
        instance_sha256=IMAGE,
        heatmap=name,
    )
    files = (ProducedFile(name="heatmap.png", role="heatmap", media_type="image/png", caption=plugin),)
    return Analysis(plugin=plugin, plugin_version="1", models=(), findings=(finding,), files=files)


def stored(digit: str) -> StoredFile:
    return StoredFile(name="heatmap.png", sha256=digit * 64, size_bytes=1, media_type="image/png")


def test_each_plugin_keeps_its_own_heat_map_whatever_it_is_called() -> None:
    made = {("one", "heatmap.png"): stored("1"), ("two", "heatmap.png"): stored("2")}
    for order in (("one", "two"), ("two", "one")):
        found = heatmap_of(IMAGE, [analysis(plugin) for plugin in order], made)
        assert found is not None
        shown, file = found
        assert shown.caption == order[0]
        assert file is made[order[0], "heatmap.png"]


def test_no_map_stands_beside_a_finding_that_has_none() -> None:
    assert heatmap_of(IMAGE, [analysis("one", heatmap=False)], {("one", "heatmap.png"): stored("1")}) is None
    assert heatmap_of("b" * 64, [analysis("one")], {("one", "heatmap.png"): stored("1")}) is None
    assert heatmap_of(IMAGE, [analysis("one")], {("two", "heatmap.png"): stored("2")}) is None
