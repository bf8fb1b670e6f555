"""Images beside each other in threads: the same numbers as one after the other, and nothing said aloud."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinic_ai.contract import Device, Example
from clinic_ai_xray.cache import compute_parts
from clinic_ai_xray.data import in_threads, read_input
from clinic_ai_xray.engine import XrayEngine
from clinic_ai_xray.phantom import draw_chest
from clinic_ai_xray.served import INTRA_OP, ServedModel

PATIENCE_S = 30.0


def features_of(base: ServedModel, examples: list[Example], cache: Path):
    train = [example.model_copy(update={"split": "train"}) for example in examples]
    parts, unreadable = compute_parts(base, train, cache, 2, lambda _: None, lambda: False)
    return parts["train"], unreadable


def test_features_do_not_depend_on_threads_or_on_neighbours(tmp_path, reference, corpus):
    examples = list(corpus.examples[:12])
    examples[4] = examples[4].model_copy(update={"path": str(tmp_path / "gone")})
    alone, beside = (ServedModel(reference, Device(threads=threads)) for threads in (1, 3))
    want, unreadable = features_of(alone, examples, tmp_path / "alone")
    assert unreadable == 1
    assert [e.sha256 for e in want.examples] == [e.sha256 for e in (*examples[:4], *examples[5:])]
    for number, base in enumerate((alone, beside, beside)):
        got, _ = features_of(base, examples[::-1], tmp_path / f"backwards-{number}")
        assert got.examples == want.examples[::-1]
        np.testing.assert_array_equal(got.pooled[::-1], want.pooled)
    few, _ = features_of(beside, examples[5:7], tmp_path / "few")
    np.testing.assert_array_equal(few.pooled, want.pooled[4:6])


def test_training_computes_features_of_what_serving_judges(tmp_path, reference, corpus):
    base = ServedModel(reference, Device(threads=2))
    features, _ = features_of(base, list(corpus.examples[:3]), tmp_path / "cache")
    for pair, example in zip(features.pooled, corpus.examples, strict=False):
        image = read_input(example.path, base.side)
        np.testing.assert_allclose(pair[:1], base.activations(image[None, None])["features"], atol=1e-5)
        np.testing.assert_allclose(pair[1:], base.activations(image[None, None, :, ::-1])["features"], atol=1e-5)


def test_a_study_in_threads_is_judged_as_one_after_the_other(tmp_path, reference, film, image_of, task_of):
    Image.fromarray(np.rint(draw_chest(320, 288, seed=9) * 255).astype(np.uint8)).save(tmp_path / "film.png")
    images = [
        film("1.dcm", seed=1),
        film("2.dcm", seed=2, header={"view_position": "LL"}),
        image_of(tmp_path / "film.png"),
        film("black.dcm", pixels=np.zeros((200, 200), dtype=np.float32)),
        *(film(f"{seed}.dcm", seed=seed) for seed in range(4, 9)),
    ]
    analyses, pictures = [], []
    for threads in (1, 3):
        engine = XrayEngine()
        engine.load(reference, Device(threads=threads))
        task = task_of(*images)
        analysis = engine.analyse(task)
        assert set(analysis.timings_ms) == {"read", "infer"}
        analyses.append(analysis.model_copy(update={"timings_ms": {}}))
        pictures.append([(Path(task.output_directory) / file.name).read_bytes() for file in analysis.files])
    assert [f.instance_sha256 for f in analyses[0].findings] == [images[i].sha256 for i in (0, 2, 4, 5, 6, 7, 8)]
    assert [refusal.code for refusal in analyses[0].refusals] == ["lateral_view", "empty_image"]
    assert analyses[0] == analyses[1]
    assert pictures[0] == pictures[1]


def test_results_come_in_order_and_what_is_raised_is_raised():
    gate = threading.Barrier(2)

    def twice(number: int) -> int:
        if number < 2:
            gate.wait(PATIENCE_S)  # both at once, or never
        return 2 * number

    assert in_threads(twice, range(5), 2) == [0, 2, 4, 6, 8]
    assert in_threads(twice, (), 2) == []
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // number, (1, 0, 1), 2)


def test_what_does_not_fit_beside_another_is_done_alone():
    main = threading.current_thread()

    def large(number: int) -> int:
        if threading.current_thread() is not main:
            raise MemoryError
        return 2 * number

    assert in_threads(large, range(3), 2) == [0, 2, 4]


def test_threads_are_for_images_and_not_inside_one(reference):
    served = ServedModel(reference, Device(threads=3))
    assert served.threads == 3
    assert served._session.get_session_options().intra_op_num_threads == INTRA_OP == 1


def test_a_thread_that_stops_silencing_warnings_does_not_let_those_of_another_out(recwarn):
    first, second, left = threading.Event(), threading.Event(), threading.Event()

    def read(number: int) -> None:
        assert number == 0 or first.wait(PATIENCE_S)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (second if number else first).set()
            assert (left if number else second).wait(PATIENCE_S)
            if number == 1:
                warnings.warn("the value of a file", UserWarning, stacklevel=1)
        left.set()

    in_threads(read, (0, 1), 2)
    assert not recwarn
    warnings.warn("afterwards", UserWarning, stacklevel=1)
    assert len(recwarn) == 1
