"""Questions about an image through a whole appliance: guard, engine, guard, record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import rows, wait_until
from PIL import Image
from talking_engine import ANSWER, LOOP, TALKING

from clinic_ai.control.question_client import QuestionClient
from clinic_ai.control.question_views import QuestionOrder
from clinic_ai.control.server import ControlServer
from clinic_ai.daemon import Appliance
from clinic_ai.domain import Asked, AskOutcome, Audience, StudyState
from clinic_ai.errors import ClinicError, Conflict, InputError, NotFound
from clinic_ai.home import Home, init_home, lock_home
from clinic_ai.plugins import PluginCatalogue
from clinic_ai.questions import Question
from clinic_ai.settings import load_settings
from clinic_ai.store import studies

SIDE = "In which half of the image does the head lie?"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance whose engine answers questions, with one study of a head in it."""
    from harness import QUICK

    home = init_home(tmp_path_factory.mktemp("asking") / "h")
    home.clinic_toml.write_text(QUICK + "\n[questions]\nanswer_timeout_s = 1.0\n")
    with pytest.MonkeyPatch.context() as patch, lock_home(home):
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent / "support"))
        patch.setattr("clinic_ai.engines.ASK_GRACE_S", 0.0)
        appliance = Appliance(home, load_settings(home.clinic_toml), PluginCatalogue({"talking": TALKING}, []))
        try:
            appliance.open()
            appliance.start()
            drop(home, "head.png", seed=1)
            wait_until(lambda: len(done(appliance)) == 1, "the end of the study")
            yield appliance
        finally:
            appliance.stop(grace_s=5.0)


def drop(home: Home, name: str, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 255, (96, 128), dtype=np.uint8)
    aside = home.path / name
    Image.fromarray(levels).save(aside)
    folder = home.inbox / "US" / "HEAD"
    folder.mkdir(parents=True, exist_ok=True)
    aside.rename(folder / name)


def done(appliance: Appliance) -> list[str]:
    with appliance.database.read() as connection:
        return [s.study_id for s in studies.studies_in(connection, StudyState.DONE)]


def ask(appliance: Appliance, text: str, audience: Audience = Audience.CLINICIAN, **how: object) -> Asked:
    [study_id] = done(appliance)
    return appliance.questions.ask(Question(study_id=study_id, text=text, audience=audience, **how), "anna")


def test_an_answer_comes_out_of_the_guard_and_says_where_it_is_from(appliance: Appliance) -> None:
    asked = ask(appliance, SIDE)
    assert asked.outcome is AskOutcome.ANSWERED
    assert asked.document.answer is not None
    assert asked.document.answer.text == f"{SIDE} {ANSWER} This is likely right. It was a phantom."
    assert (asked.document.image, asked.document.category, asked.document.confidence) == (1, "fetal_head", 0.8)
    assert asked.document.marks  # no model of a test has a clinical record
    [row] = rows(appliance.home, "SELECT * FROM questions WHERE question_id = ?", asked.question_id)
    assert (row["outcome"], row["asked_by"], row["question"]) == ("answered", "anna", SIDE)
    [audited] = rows(
        appliance.home,
        "SELECT details FROM audit WHERE action = 'question.asked' AND details LIKE ?",
        f"%{asked.question_id}%",
    )
    assert "half" not in audited["details"]
    assert appliance.questions.asked_about(asked.study_id)[0] == asked


@pytest.mark.parametrize("audience", [Audience.CLINICIAN, Audience.PATIENT])
def test_what_the_guard_answers_itself_starts_no_engine(appliance: Appliance, audience: Audience) -> None:
    appliance.engines.close()
    asked = ask(appliance, "What is the weather tomorrow?", audience)
    assert asked.outcome is AskOutcome.TEMPLATE
    assert asked.document.answer is not None
    assert asked.document.answer.sources
    assert asked.document.models == ()
    assert not appliance.engines.views()


def test_a_patient_reads_templates_and_never_the_words_of_a_model(appliance: Appliance) -> None:
    asked = ask(appliance, SIDE, Audience.PATIENT)
    assert asked.document.answer is not None
    assert asked.document.answer.sources
    assert "left" not in asked.document.answer.text


def test_a_loop_is_held_and_stored_in_no_words(appliance: Appliance) -> None:
    asked = ask(appliance, "What is the texture of the head in the image?")
    assert asked.outcome is AskOutcome.HELD
    assert asked.document.answer is None
    assert asked.document.rule
    stored = [dict(row) for row in rows(appliance.home, "SELECT * FROM questions")]
    assert LOOP[:20] not in str(stored)


def test_a_refusal_of_the_plugin_is_said_in_its_words(appliance: Appliance) -> None:
    asked = ask(appliance, "Is the contour of the head visible in the image?")
    assert asked.outcome is AskOutcome.REFUSED
    assert asked.document.sentence == "The contour is not visible."


def test_an_answer_about_another_image_is_none_and_its_engine_is_gone(appliance: Appliance) -> None:
    asked = ask(appliance, "Is the head bright in the image?")
    assert asked.outcome is AskOutcome.FAILED
    assert "another image" in asked.document.sentence
    assert not appliance.engines.views()


def test_an_answer_that_does_not_come_in_time_is_none(appliance: Appliance) -> None:
    asked = ask(appliance, "Is the head blurred in the image?")
    assert asked.outcome is AskOutcome.FAILED
    assert ask(appliance, SIDE).outcome is AskOutcome.ANSWERED


def test_a_guard_that_is_killed_holds_or_judges_again_but_lets_nothing_past(appliance: Appliance) -> None:
    appliance.guard._bury()
    asked = ask(appliance, SIDE)
    assert asked.outcome in {AskOutcome.ANSWERED, AskOutcome.HELD}
    if asked.outcome is AskOutcome.ANSWERED:
        assert asked.document.answer is not None
        assert asked.document.answer.policy_hash == asked.policy_hash


def test_what_cannot_be_meant_is_said(appliance: Appliance) -> None:
    with pytest.raises(NotFound):
        appliance.questions.ask(Question(study_id="S-1", text=SIDE, audience=Audience.CLINICIAN), "anna")
    with pytest.raises(InputError, match="no image 2; there is one image"):
        ask(appliance, SIDE, image="2")
    with pytest.raises(InputError, match="one frame; there is no frame 3"):
        ask(appliance, SIDE, frame=3)


def test_over_the_sockets(appliance: Appliance) -> None:
    server = ControlServer(appliance.home, appliance.services())
    server.start()
    try:
        [study_id] = done(appliance)
        with QuestionClient(appliance.home) as client:
            asked = client.ask(study_id, QuestionOrder(question=SIDE))
            assert asked in client.asked(study_id)
        with QuestionClient(appliance.home, monitor=True) as client:
            for call in (
                lambda: client.ask(study_id, QuestionOrder(question=SIDE)),
                lambda: client.asked(study_id),
            ):
                with pytest.raises(ClinicError, match="monitor socket"):
                    call()
    finally:
        server.stop()


def test_a_study_of_two_images_wants_to_know_which(appliance: Appliance) -> None:
    study_id = done(appliance)[0]
    scene = appliance.questions._scene(study_id)
    from clinic_ai.questions import _meant, _only

    two = (*scene.images, scene.images[0].model_copy(update={"sha256": "f" * 64}))
    with pytest.raises(InputError, match="2 images"):
        _only(_meant(two, ""))
    assert _meant(two, "2") == two[1:]
    assert _meant(two, "ffffff") == two[1:]
    with pytest.raises(InputError):
        _meant(two, "0")


def test_nobody_answers_about_a_study_of_another_plugin(appliance: Appliance) -> None:
    with pytest.raises(Conflict, match="No plugin that answers questions"):
        appliance.questions._who_answers("S-1", ["echo"])
