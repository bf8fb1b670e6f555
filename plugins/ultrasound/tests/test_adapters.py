"""Adapters over one base: what is refused, that a switch reads nothing, and that one never changes another."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_adapter, make_base, seal

from clinic_ai.contract import Device
from clinic_ai.domain import Generation
from clinic_ai.errors import ModelError
from clinic_ai_ultrasound import adapters as module
from clinic_ai_ultrasound.adapters import CONFIG, WEIGHTS, Adapters
from clinic_ai_ultrasound.answering import answer, look
from clinic_ai_ultrasound.loading import load_base
from clinic_ai_ultrasound.pictures import picture

SHORT = Generation(max_new_tokens=10)


@pytest.fixture(scope="module")
def over(tiny, adapters):
    """All five adapters over a base of their own."""
    found = Adapters(load_base(tiny, Device()))
    for adapter in adapters.values():
        found.add(adapter)
    return found


def answers(over, ref, picture_file, questions=("Which view?", "Is the whole head in view?")):
    over.use(ref)
    seen = look(over._base, picture(picture_file(3)))
    return answer(over._base, seen, questions, SHORT, timeout_s=60)


def test_forty_mixed_questions_are_answered_as_by_one_adapter_alone(tiny, adapters, over, picture_file):
    asked = [
        (category, f"Question {number}: which view does the image show?")
        for number in range(8)
        for category in adapters
    ]
    alone = {}
    for category, adapter in adapters.items():
        single = Adapters(load_base(tiny, Device()))
        single.add(adapter)
        for key, question in asked:
            if key == category:
                alone[key, question] = answers(single, adapter.ref, picture_file, [question])
    read = over.loads
    mixed = {(key, question): answers(over, adapters[key].ref, picture_file, [question]) for key, question in asked}
    assert len(mixed) == 40
    assert mixed == alone
    assert over.loads == read == 5, "a switch must read no file"
    assert len({answered.text for (answered,) in mixed.values()}) > 20, "the adapters must make a difference"


def test_another_femur_changes_nobody_else(tiny, adapters, over, picture_file, tmp_path):
    others = [key for key in adapters if key != "femur"]
    before = {key: answers(over, adapters[key].ref, picture_file) for key in others}
    base, femur = answers(over, None, picture_file), answers(over, adapters["femur"].ref, picture_file)
    fresh = make_adapter(tmp_path / "femur", tiny, "femur", seed=77)
    over.add(fresh)
    assert answers(over, fresh.ref, picture_file) != femur
    assert {key: answers(over, adapters[key].ref, picture_file) for key in others} == before
    assert answers(over, None, picture_file) == base
    assert answers(over, adapters["femur"].ref, picture_file) == femur, "a job may still pin the one before"


def test_an_adapter_of_other_layers_changes_nobody_else(tiny, adapters, picture_file, tmp_path):
    over = Adapters(load_base(tiny, Device()))
    femur = adapters["femur"]
    bare = answers(over, None, picture_file)
    over.add(femur)
    assert answers(over, None, picture_file) == bare, "PEFT puts the first one in use by loading it"
    before = answers(over, femur.ref, picture_file)
    other = make_adapter(tmp_path / "thorax", tiny, "thorax", seed=8, rank=4, targets=("k_proj", "fc1"))
    over.add(other)
    assert answers(over, femur.ref, picture_file) == before
    assert answers(over, None, picture_file) == bare
    over.add(make_adapter(tmp_path / "cervix", tiny, "cervix", seed=9, targets=("out_proj", "fc2")))
    assert answers(over, None, picture_file) == bare, "no adapter was in use when this one came"
    alone = Adapters(load_base(tiny, Device()))
    alone.add(other)
    assert answers(over, other.ref, picture_file) == answers(alone, other.ref, picture_file) != before


def test_the_base_alone_is_as_if_there_were_no_adapters(loaded, over, picture_file):
    seen = look(loaded, picture(picture_file(3)))
    assert answers(over, None, picture_file, ["Which view?"]) == answer(
        loaded, seen, ["Which view?"], SHORT, timeout_s=60
    )


def test_the_longest_unused_adapter_goes_and_comes_back(tiny, adapters, picture_file, monkeypatch):
    monkeypatch.setattr(module, "RESIDENT", 2)
    few = Adapters(load_base(tiny, Device()))
    first, second, third = list(adapters.values())[:3]
    few.add(first)
    expected = answers(few, first.ref, picture_file)
    few.add(second)
    few.use(first.ref)
    few.add(third)
    assert [name.split("-")[0] for name in few.resident] == [first.ref.slot, third.ref.slot]
    few.use(second.ref)
    assert few.loads == 4
    assert answers(few, first.ref, picture_file) == expected
    assert few.loads == 5


def test_an_adapter_over_an_int8_base(tiny_int8, tmp_path, picture_file):
    adapter = make_adapter(tmp_path / "femur", tiny_int8, "femur")
    over = Adapters(load_base(tiny_int8, Device()))
    bare = answers(over, None, picture_file, ["Which view?"])
    over.add(adapter)
    assert answers(over, adapter.ref, picture_file, ["Which view?"]) != bare
    assert answers(over, None, picture_file, ["Which view?"]) == bare


def settings(**changes):
    def change(directory):
        path = directory / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change):
    def rewrite(directory):
        found = load_file(directory / WEIGHTS)
        change(found, sorted(found)[0])
        save_file(found, directory / WEIGHTS)

    return rewrite


def a_pickle(directory):
    torch.save(load_file(directory / WEIGHTS), directory / "adapter_model.bin")
    (directory / WEIGHTS).unlink()


def as_it_is(directory):
    """No damage; the manifest is what is wrong."""


DAMAGE = {
    "another base": (as_it_is, {"base_digest": "1" * 64}, "trained on another base"),
    "another quantisation": (as_it_is, {"quantisation": "int8"}, "quantisation 'int8'; this one has 'none'"),
    "another prompt": (as_it_is, {"parameters": {"category": "femur", "prompt_version": 0}}, "wording of the prompt"),
    "another category": (as_it_is, {"slot": "thorax"}, "its category is not its slot"),
    "a pickle": (a_pickle, {}, "adapter_model.bin is neither safetensors nor text"),
    "no weights": (lambda d: (d / WEIGHTS).unlink(), {}, "adapter_model.safetensors is missing"),
    "rubbish": (lambda d: (d / WEIGHTS).write_bytes(b"\x00" * 64), {}, "cannot be read"),
    "a rank too small": (settings(r=4), {}, "are 8 x 32 where this base needs 4 x 32"),
    "a tensor missing": (tensors(lambda t, first: t.pop(first)), {}, "do not fit its config and this base"),
    "a tensor too many": (tensors(lambda t, first: t.update(more=torch.ones(1))), {}, "do not fit its config"),
    "not a number": (tensors(lambda t, first: t[first].fill_(float("inf"))), {}, "not all finite"),
    "whole numbers": (tensors(lambda t, first: t.update({first: t[first].to(torch.int8)})), {}, "not all finite float"),
    "the vision tower": (settings(target_modules=["qkv"]), {}, "only the linear layers of the language model"),
    "the head": (settings(target_modules=["lm_head"]), {}, "only the linear layers of the language model"),
    "nothing here": (settings(target_modules=["c_attn"]), {}, "none of this base"),
    "an alpha in words": (settings(lora_alpha="16"), {}, "its rank or alpha is no positive number"),
    "a pattern without end": (settings(target_modules="(((a|.)+)+)+x"), {}, "a pattern that may take forever"),
    "a pattern of many stars": (settings(target_modules=".*.*.*.*.*x"), {}, "a pattern that may take forever"),
    "a DoRA": (settings(use_dora=True), {}, "more than a plain LoRA .use_dora."),
    "more saved": (settings(modules_to_save=["lm_head"]), {}, "more than a plain LoRA .modules_to_save."),
    "no LoRA": (settings(peft_type="IA3"), {}, "no LoRA adapter|cannot be read"),
    "a deep config": (lambda d: (d / CONFIG).write_text("[" * 100_000), {}, "cannot be read"),
    "no config": (lambda d: (d / CONFIG).write_text("[]"), {}, "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_belong_over_the_base_is_refused_in_words(adapters, over, tmp_path, damage):
    change, words, sentence = DAMAGE[damage]
    whole = adapters["femur"]
    directory = tmp_path / "adapter"
    shutil.copytree(whole.directory, directory)
    change(directory)
    manifest = whole.manifest.model_dump(exclude={"files", "plugin", "format", "licence", "source", "intended_use"})
    adapter = seal(directory, **manifest | words)
    before = over.resident
    with pytest.raises(ModelError, match=sentence) as caught:
        over.add(adapter)
    assert caught.value.remedy
    assert over.resident == before
    with pytest.raises(ModelError, match="not loaded"):
        over.use(adapter.ref)


def test_an_adapter_of_a_base_of_other_weights_is_refused(over, tmp_path):
    """The same config, other random weights: every tensor would fit."""
    stranger = make_base(tmp_path / "base", seed=9)
    with pytest.raises(ModelError, match="trained on another base"):
        over.add(make_adapter(tmp_path / "adapter", stranger, "femur"))
