"""Where loss curves come from: columns are detected sensibly, and what is wrong is one sentence with its line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinic_ai.errors import InputError
from clinic_ai.training.loss_curves import read_curve

GOOD = "step,loss\n1,5\n2,4\n4,3\n"


def read(folder: Path, text: str | bytes, column: str = ""):
    file = folder / "curve.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_curve(file, column)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "1,5\n2,4\n4,3\n",
        "\ufeffStep;Training Loss\n1;5\n\n2;4\n4;3\n",
        "Wall time,Step,Value\n10,1,5\n12,2,4\n16,4,3\n",
        "loss\tstep\n5\t1\n4\t2\n3\t4\n",
        "epoch,step,train_loss,eval_loss\n0.1,1,5,\n0.2,2,4,\n0.2,2,,9\n0.4,4,3,\n",
        "step,loss\n0,9\n1,5\n2,4\n4,3\n",
        'step,loss\r\n"1","5"\r\n2,4\r\n4,3\r\n',
        "global_step,batch loss\n1,5\n2,4\n4,3",
    ],
)
def test_columns_are_told_by_their_names(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text).curve
    assert (found.unit, found.steps, found.losses) == ("step", (1, 2, 4), (5, 4, 3))


def test_epochs_are_told_from_steps(tmp_path: Path) -> None:
    found = read(tmp_path, "epoch,loss,validation_auroc\n1,5,0.7\n2,4,0.8\n").curve
    assert (found.unit, found.steps) == ("epoch", (1, 2))


def test_a_clock_tells_the_time_of_a_step_whatever_pauses_there_were(tmp_path: Path) -> None:
    assert read(tmp_path, "wall time,step,loss\n10,1,5\n14,3,4\n9999,5,3\n10003,7,2\n").seconds_per_step == 2
    assert read(tmp_path, GOOD).seconds_per_step is None


def test_a_column_can_be_named(tmp_path: Path) -> None:
    text = "step,loss,Validation Loss\n1,5,6\n2,4,7\n"
    assert read(tmp_path, text, "validation loss").curve.losses == (6, 7)
    with pytest.raises(InputError, match=r"has no column reward; it has step, loss, validation_loss\."):
        read(tmp_path, text, "reward")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "curve.csv is empty."),
        ("\n\n", "curve.csv is empty."),
        ("step,loss\n1,5\n2,much\n", "Line 3 of curve.csv has a loss of “much”, which is no number."),
        ("step,loss\nfirst,5\n", "Line 2 of curve.csv has a step of “first”, which is no number."),
        ("step,loss\n1,5\n2,nan\n", "Line 3 of curve.csv has a loss of nan, which is no finite number."),
        ("step,loss\n1,5\n2,-inf\n", "Line 3 of curve.csv has a loss of -inf, which is no finite number."),
        ("step,loss\n1,5\n2,4\n\n2,3\n", "Step 2 is in curve.csv twice, in lines 3 and 5."),
        ("step,loss\n1,5\n4,4\n3,3\n", "Line 4 of curve.csv has step 3 after step 4."),
        ("step,reward\n1,5\n", "curve.csv has no column that is a loss; it has step, reward."),
        ("loss,auroc\n5,1\n", "curve.csv has no column of steps; it has loss, auroc."),
        (
            "step,my loss,loss b\n1,2,3\n",
            "curve.csv has several columns that may be the loss; it has step, my_loss, loss_b.",
        ),
        (b"step,loss\n1,5\n2,\xff\n", "Line 3 of curve.csv is no text in UTF-8."),
        (b"step,loss\n1,5\x00\n", "curve.csv is no text: it has zero bytes."),
        ('step,loss\n1,"5\n', "Line 2 of curve.csv is no CSV: unexpected end of data."),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, text)
    assert refused.value.message == sentence


def test_a_file_that_is_not_there_or_a_folder_says_so(tmp_path: Path) -> None:
    for place in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_curve(place)


@given(text=st.text(alphabet='0123456789.,;\n\t"eE-+ nanifstploe\0é', max_size=120))
def test_whatever_a_file_says_it_is_a_curve_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("curve")
    try:
        found = read(folder, text)
    except InputError:
        return
    steps = found.curve.steps
    assert len(steps) == len(found.curve.losses)
    assert all(math.isfinite(value) for value in (*steps, *found.curve.losses))
    assert list(steps) == sorted(set(steps))
