"""Answers of one picture: the model's own, without the prompt, in time, with its own probabilities."""

from __future__ import annotations

import pytest
import torch
from tiny import make_base

from clinic_ai.contract import Device
from clinic_ai.domain import Generation
from clinic_ai.errors import InputError, ModelError
from clinic_ai_ultrasound import answering
from clinic_ai_ultrasound.answering import CUT_OFF, REPETITION, answer, look
from clinic_ai_ultrasound.confidence import Calibration, mean_log_probabilities
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.prompts import prompt
from clinic_ai_ultrasound.sequences import prompt_tokens

PLAIN = Generation(max_new_tokens=12, no_repeat_ngram_size=0, repetition_penalty=1.0)
QUESTION = "In which half of the image does the femur lie?"


@pytest.fixture(scope="module")
def seen(loaded, picture_file):
    return look(loaded, picture(picture_file(5)))


@pytest.mark.parametrize("family", ["blip2", "instructblip"])
def test_the_answer_is_what_generate_of_transformers_gives(family, tmp_path, picture_file):
    """With its penalties off: it lets them count the words of the question, which ours do not."""
    base = load_base(make_base(tmp_path / "base", family=family), Device())
    shown = picture(picture_file(5))
    inputs = base.processor(shown, prompt(QUESTION), return_tensors="pt")
    tokens = base.model.generate(**inputs, **PLAIN.model_dump(), do_sample=False)[0]
    whole = base.tokenizer.decode(tokens, skip_special_tokens=True)
    assert whole.startswith(prompt(QUESTION)), "what there is to strip"
    (ours,) = answer(base, look(base, shown), [QUESTION], PLAIN, timeout_s=60)
    assert ours.text
    assert ours.text == " ".join(whole.removeprefix(prompt(QUESTION)).split())


def test_a_prompt_that_the_model_says_itself_is_stripped(loaded, seen, monkeypatch):
    said = loaded.tokenizer(f"{prompt(QUESTION)} In the left\n half.", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(
        loaded.model.language_model, "generate", lambda **_: torch.tensor([[*said, loaded.tokenizer.eos_token_id]])
    )
    (ours,) = answer(loaded, seen, [QUESTION], PLAIN, timeout_s=60)
    assert (ours.text, ours.flags) == ("In the left half.", ())


def test_what_is_cut_is_flagged(loaded, seen, monkeypatch):
    said = loaded.tokenizer("Yes. Yes. Yes.", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(loaded.model.language_model, "generate", lambda **_: torch.tensor([said]))
    (ours,) = answer(loaded, seen, [QUESTION], PLAIN, timeout_s=60)
    assert ours.text == "Yes."
    assert set(ours.flags) == {CUT_OFF, REPETITION}


def test_an_answer_that_is_late_is_none(loaded, seen):
    with pytest.raises(InputError, match="within 1e-09 s") as caught:
        answer(loaded, seen, [QUESTION], PLAIN, timeout_s=1e-9)
    assert caught.value.code == "answer_timeout"
    assert "answer_timeout_s" in caught.value.remedy


def test_a_question_longer_than_the_model_is_refused(loaded, seen):
    with pytest.raises(InputError, match="this model takes 256") as caught:
        answer(loaded, seen, ["where " * 250], PLAIN, timeout_s=60)
    assert caught.value.code == "question_too_long"


@pytest.mark.parametrize("word", ["<image>", "</s>", "<pad>"])
def test_a_word_that_is_no_word_to_the_model_is_refused(loaded, seen, word):
    with pytest.raises(InputError, match="angle brackets"):
        answer(loaded, seen, [f"What is {word} here?"], PLAIN, timeout_s=60)


def test_the_tower_looks_once_however_many_questions(loaded, picture_file, monkeypatch):
    looks = []
    real = loaded.model.vision_model.forward
    monkeypatch.setattr(loaded.model.vision_model, "forward", lambda *a, **k: looks.append(1) or real(*a, **k))
    answer(loaded, look(loaded, picture(picture_file(1))), [QUESTION] * 8, PLAIN, timeout_s=60)
    assert looks == [1]


def test_an_int8_base_answers_the_same_whatever_else_is_asked(tiny_int8, picture_file):
    base = load_base(tiny_int8, Device())
    assert base.model.language_model.model.decoder.layers[0].fc1.weight.dtype is torch.int8
    seen = look(base, picture(picture_file(5)))
    others = [QUESTION, "Which view does the image show?", "Is it cut off?"]
    (alone,) = answer(base, seen, [QUESTION], PLAIN, timeout_s=60)
    assert alone.text
    assert answer(base, seen, others, PLAIN, timeout_s=60)[0] == alone


class TestConfidence:
    def test_the_mean_is_of_the_models_own_probabilities(self, loaded, seen):
        """Token by token with the model's forward and the processor's layout, as nothing of ours computes it."""
        said = loaded.tokenizer("In the left half.", add_special_tokens=False)["input_ids"]
        prompts = [prompt_tokens(loaded, QUESTION), prompt_tokens(loaded, "Which view?")]
        features = seen.features.expand(2, -1, -1)
        means = mean_log_probabilities(loaded, features, prompts, [said, said[:3]])
        for tokens, answer_tokens, mean in zip(prompts, [said, said[:3]], means, strict=True):
            total, so_far = 0.0, list(tokens)
            for token in answer_tokens:
                with torch.inference_mode():
                    logits = loaded.model(pixel_values=seen.pixels, input_ids=torch.tensor([so_far])).logits[0, -1]
                total += logits.log_softmax(-1)[token].item()
                so_far.append(token)
            assert mean == pytest.approx(total / len(answer_tokens), abs=1e-4)

    def test_the_penalty_for_repetition_does_not_change_it(self, loaded, seen, monkeypatch):
        fixed = torch.tensor([loaded.tokenizer("The femur.", add_special_tokens=False)["input_ids"]])
        monkeypatch.setattr(loaded.model.language_model, "generate", lambda **_: fixed)
        strict = PLAIN.model_copy(update={"repetition_penalty": 5.0})
        means = {answer(loaded, seen, [QUESTION], g, timeout_s=60)[0].mean_log_probability for g in (PLAIN, strict)}
        assert len(means) == 1

    def test_calibration_comes_from_the_manifest(self, tiny):
        manifest = tiny.manifest
        assert Calibration.of(manifest) is None

        def with_(**values):
            return manifest.model_copy(update={"parameters": manifest.parameters | values})

        calibration = Calibration.of(with_(confidence_slope=2.0, confidence_intercept=1.0))
        assert calibration.probability(-0.5) == pytest.approx(0.5)
        assert calibration.probability(-1000.0) == pytest.approx(0.0)
        for wrong in ({"confidence_slope": 2.0}, {"confidence_slope": float("nan"), "confidence_intercept": 0.0}):
            with pytest.raises(ModelError, match="not a pair of numbers"):
                Calibration.of(with_(**wrong))


def test_an_answer_is_bounded_and_printable(loaded, seen, monkeypatch):
    monkeypatch.setattr(answering, "MAX_TEXT", 8)
    said = loaded.tokenizer("In the left half.", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(loaded.model.language_model, "generate", lambda **_: torch.tensor([[*said, 1]]))
    (ours,) = answer(loaded, seen, [QUESTION], PLAIN, timeout_s=60)
    assert (ours.text, ours.flags) == ("In the l", (CUT_OFF,))
