"""Which image a cell names, in the spellings people use; never a guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.training.image_names import ImageNames

FOLDER = ImageNames(
    [
        "a.png",
        "B.JPG",
        "p1/c.png",
        "p2/c.png",
        "p1/d.dcm",
        "twin.png",
        "twin.jpg",
        "1.2.840",
        "x/Cafe\u0301  1.png",
        "007.png",
    ]
)


@pytest.mark.parametrize(
    ("cell", "image"),
    [
        ("a.png", "a.png"),
        ("A.PNG", "a.png"),
        ("a", "a.png"),
        ("b.jpeg", "B.JPG"),
        (r"C:\data\femur\a.png", "a.png"),
        ("./a.png", "a.png"),
        ("/srv/femur/p1/c.png", "p1/c.png"),
        (r"P2\C.png", "p2/c.png"),
        ("d", "p1/d.dcm"),
        ("twin.jpg", "twin.jpg"),
        ("1.2.840", "1.2.840"),
        ("Café 1.png", "x/Cafe\u0301  1.png"),
        ("007", "007.png"),
    ],
)
def test_an_image_is_found(cell: str, image: str) -> None:
    assert FOLDER.named(cell) == (image,)


@pytest.mark.parametrize(
    ("cell", "images"),
    [
        ("c.png", ("p1/c.png", "p2/c.png")),
        ("twin", ("twin.jpg", "twin.png")),
        ("p3/c.png", ()),
        ("a.jpg", ()),
        ("7", ()),
        ("..", ()),
        ("/", ()),
        ("nothing.png", ()),
    ],
)
def test_what_is_missing_or_ambiguous_is_not_guessed(cell: str, images: tuple[str, ...]) -> None:
    assert FOLDER.named(cell) == images


_PART = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/\\"), min_size=1, max_size=6)
_NAME = st.lists(_PART.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=3).map("/".join)


@given(names=st.lists(_NAME, min_size=1, max_size=8, unique=True), cell=st.text(max_size=12))
def test_each_image_is_found_by_its_own_path_and_what_is_found_is_there(names: list[str], cell: str) -> None:
    images = ImageNames(names)
    assert all(images.named(name) == (name,) for name in names)
    assert set(images.named(cell)) <= set(names)
