"""What the reference models are made of: answers follow from ellipses, a subject is in one part, nothing lopsided."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from clinic_ai.domain import PatientIdentity
from clinic_ai.training.conditioning import why_not
from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.plugin import describe_plugin
from clinic_ai_ultrasound.prompts import prompt
from clinic_ai_ultrasound.reference.ellipse import HEIGHT, WIDTH, Ellipse, facts
from clinic_ai_ultrasound.reference.heads import Head, fit_ellipse, part_of, read_heads, trimester, views
from clinic_ai_ultrasound.reference.network import make_pictures, make_tokenizer, sentences
from clinic_ai_ultrasound.reference.phantoms import draw_phantoms
from clinic_ai_ultrasound.reference.pretraining import Sample, normalised, shrink, targets
from clinic_ai_ultrasound.reference.questions import SUBJECTS, TOPICS, VIEW_WORDINGS, ask, balanced, choice_of, word


@pytest.mark.parametrize(
    ("ellipse", "known"),
    [
        (Ellipse(100, 80, 60, 45, 0.1), {"side": "left", "level": "upper", "fills": "no", "whole": "yes"}),
        (Ellipse(300, 200, 60, 45, 0.0), {"side": "right", "level": "lower", "axis": "horizontal", "whole": "yes"}),
        (Ellipse(200, 135, 120, 90, 0.0), {"fills": "yes", "whole": "yes", "axis": "horizontal"}),
        (Ellipse(10, 135, 80, 60, math.pi / 2), {"side": "left", "whole": "no", "axis": "vertical"}),
        (Ellipse(200, 135, 80, 60, -math.pi / 4), {"axis": "oblique"}),
        (Ellipse(200, 135, 80, 60, math.pi - 0.1), {"axis": "horizontal"}),
    ],
)
def test_what_is_true_follows_from_the_ellipse(ellipse, known):
    true = facts(ellipse)
    assert {topic: true.get(topic) for topic in known} == known


def test_what_is_doubtful_is_left_out():
    true = facts(Ellipse(WIDTH / 2, HEIGHT / 2, 100, 99, 0.0))
    assert not {"side", "level", "axis", "fills"} & set(true)
    assert "whole" not in facts(Ellipse(80, 135, 82, 80, 0.0))  # just cut
    assert "axis" not in facts(Ellipse(200, 135, 80, 60, math.radians(25)))


def test_no_pair_of_the_reference_is_left_out_of_a_dataset():
    for category, subject in SUBJECTS.items():
        for topic in subject.topics:
            for choice in TOPICS[topic].answers:
                for wording in range(3):
                    pairs = [asked.pair for asked in ask(category, 0, {topic: choice}, wording)]
                    assert [why_not(pair, PatientIdentity()) for pair in pairs] == [None] * len(pairs), pairs


ellipses = st.builds(
    Ellipse,
    st.floats(0, WIDTH),
    st.floats(0, HEIGHT),
    st.floats(60, 150),
    st.floats(30, 59),
    st.floats(-math.pi, math.pi),
)


@given(ellipses)
def test_a_mirror_exchanges_left_and_right_and_nothing_else(ellipse):
    swapped = {"left": "right", "right": "left"}
    true, mirrored = facts(ellipse), facts(ellipse.mirrored())
    assert {topic: swapped.get(choice, choice) for topic, choice in true.items()} == mirrored


@settings(max_examples=40, deadline=None)  # the first call of LAPACK takes long
@given(ellipses)
def test_an_ellipse_is_found_from_its_outline(ellipse):
    turn = np.linspace(0, 2 * math.pi, 90, endpoint=False)
    found = fit_ellipse(*ellipse.points(np.cos(turn), np.sin(turn)))
    assert (found.x, found.y, found.a, found.b) == pytest.approx(
        (ellipse.x, ellipse.y, ellipse.a, ellipse.b), rel=1e-5, abs=1e-6
    )
    assert math.sin(found.angle - ellipse.angle) == pytest.approx(0, abs=1e-5)


def test_an_outline_that_is_no_ellipse_is_refused():
    x = np.linspace(-2, 2, 50)
    with pytest.raises(ValueError, match="not that of an ellipse"):
        fit_ellipse(np.cosh(x), np.sinh(x))


@pytest.mark.parametrize(
    ("mm", "told"), [(60, "first"), (85, "first"), (120, "second"), (240, "second"), (290, "third")]
)
def test_the_trimester_follows_from_the_circumference(mm, told):
    assert trimester(mm) == told


@pytest.fixture(scope="module")
def hc18(tmp_path_factory):
    """Eight small heads in the layout of HC18, two of them of one subject."""
    folder = tmp_path_factory.mktemp("hc18")
    (folder / "images").mkdir()
    lines = ["file,annotation,patient_id,pixel_size_mm_half,hc_mm"]
    for number in range(8):
        phantom = draw_phantoms("fetal_head", 1, seed=number)[0]
        Image.fromarray(phantom.pixels).save(folder / "images" / f"{number}.png")
        outline = Image.new("L", (2 * WIDTH, 2 * HEIGHT))
        turn = np.linspace(0, 2 * math.pi, 400)
        x, y = phantom.ellipse.points(np.cos(turn), np.sin(turn))
        ImageDraw.Draw(outline).line([(2 * a, 2 * b) for a, b in zip(x, y, strict=True)], fill=255)
        outline.save(folder / "images" / f"{number}-outline.png")
        lines.append(f"images/{number}.png,images/{number}-outline.png,s{max(1, number)},0.2,{60 + 30 * number}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_heads_are_read_with_their_outline(hc18):
    heads = read_heads(hc18)
    assert len(heads) == 8
    for number, head in enumerate(heads):
        drawn = draw_phantoms("fetal_head", 1, seed=number)[0].ellipse
        found = head.ellipse
        assert (found.x, found.y, found.a) == pytest.approx((drawn.x, drawn.y, drawn.a), abs=1.5)
    assert heads[0].truths["trimester"] == "first"
    assert heads[7].truths["trimester"] == "third"


def test_all_images_of_a_subject_are_in_one_part_and_parts_are_of_the_size_they_should_be(hc18):
    first, second, *_ = read_heads(hc18)
    assert first.subject == second.subject
    assert part_of(first.subject) == part_of(second.subject)
    counts = Counter(part_of(f"hc18-{number:03d}") for number in range(2000))
    assert counts["train"] / 2000 == pytest.approx(0.70, abs=0.04)
    assert counts["validation"] / 2000 == pytest.approx(0.15, abs=0.03)
    assert counts["test"] / 2000 == pytest.approx(0.15, abs=0.03)


def test_views_show_the_head_where_they_say_and_no_answer_is_the_usual_one(hc18):
    heads = read_heads(hc18)
    made = views(heads, 6, seed=2)
    assert [view.head for view in made] == [head for head in heads for _ in range(6)]
    for topic in ("side", "level", "whole", "axis"):
        counts = Counter(view.truths[topic] for view in made if topic in view.truths)
        assert max(counts.values()) < 2 * min(counts.values()), (topic, counts)
    for view in made:
        assert view.truths.items() >= facts(view.ellipse).items()
        assert view.ellipse.a / view.ellipse.b == pytest.approx(view.head.ellipse.a / view.head.ellipse.b)


def test_a_view_moves_the_pixels_with_the_ellipse():
    # A bright spot at one end of the long axis stays there, whatever is done to the image.
    pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ellipse = Ellipse(200, 135, 80, 60, 0.3)
    (x,), (y,) = ellipse.points(np.array([1.0]), np.array([0.0]))
    pixels[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5] = 255
    for view in views([Head("a", "a", pixels, ellipse, 100.0, 0.2)], 12, seed=4):
        ends = view.ellipse.points(np.array([1.0, -1.0]), np.zeros(2))
        spots = [
            view.pixels[max(0, int(b) - 2) : int(b) + 3, max(0, int(a) - 2) : int(a) + 3]
            for a, b in zip(*ends, strict=True)
            if 3 <= a < WIDTH - 3 and 3 <= b < HEIGHT - 3
        ]
        if len(spots) == 2:
            assert max(spot.max() for spot in spots) > 150


def _trigrams(tokens):
    return set(zip(tokens, tokens[1:], tokens[2:], strict=False))


def test_answers_can_be_generated_as_they_are_worded():
    tokenizer = make_tokenizer(sentences())
    nouns = {subject.noun for subject in SUBJECTS.values()}
    for topic, known in TOPICS.items():
        for noun in nouns:
            for wording in range(len(known.wordings)):
                answers = {word(topic, choice, noun, wording).answer for choice in known.answers}
                assert len(answers) == len(known.answers)
                question = word(topic, next(iter(known.answers)), noun, wording).question
                asked = tokenizer.tokenize(prompt(question))
                for text in answers:
                    tokens = tokenizer.tokenize(f" {text}")
                    assert len(tokens) >= 5
                    assert len(_trigrams(tokens)) == len(tokens) - 2
                    assert not _trigrams(tokens) & _trigrams(asked), (question, text)
                    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_choice_is_read_from_an_answer():
    for topic, known in TOPICS.items():
        for choice, text in known.answers.items():
            assert choice_of(topic, text.format(noun="head")) == choice
            assert choice_of(topic, text.format(noun="structure")) == choice
    assert choice_of("side", "The head lies in the upper half.") is None
    assert choice_of("side", "In the left half or the right half.") is None


def test_the_standard_questions_of_the_category_files_are_among_those_learned():
    for info in describe_plugin().categories:
        subject = SUBJECTS[info.key]
        known = {TOPICS[topic].wordings[0].format(noun=subject.noun) for topic in subject.topics}
        assert set(info.questions) <= known | {VIEW_WORDINGS[0]}, info.key


def test_balanced_pairs_have_as_many_of_each_answer():
    asked = [one for n, p in enumerate(draw_phantoms("thorax", 30, seed=6)) for one in ask("thorax", n, p.truths)]
    kept = balanced(asked, seed=1)
    for topic in SUBJECTS["thorax"].topics:
        counts = Counter(one.choice for one in kept if one.topic == topic)
        assert len(set(counts.values())) == 1
        assert len(counts) == len(TOPICS[topic].answers)
    assert {one.image for one in kept if one.topic == "view"} == set(range(30))


def test_the_network_learns_from_the_pixels_it_is_served(tmp_path):
    pixels = draw_phantoms("abdomen", 1, seed=1)[0].pixels
    Image.fromarray(pixels).save(tmp_path / "a.png")
    served = make_pictures()(picture(tmp_path / "a.png"), return_tensors="pt")["pixel_values"]
    import torch

    assert torch.equal(normalised(torch.from_numpy(shrink(pixels)[None])), served)


def test_targets_of_a_mirrored_image_are_those_of_its_mirror():
    phantom = draw_phantoms("thorax", 1, seed=9)[0]
    wanted = targets([Sample(shrink(phantom.pixels), "thorax", phantom.ellipse, phantom.truths)])
    plain, mirrored = wanted.occupied[:, 0].reshape(2, 7, 7)
    assert np.allclose(plain.flip(1), mirrored, atol=0.07)
    assert wanted.ellipse[0, 0, 0] == pytest.approx(-wanted.ellipse[1, 0, 0])
    names = list(TOPICS)
    for topic in ("side", "heart"):
        if topic in phantom.truths:
            number = names.index(topic)
            assert wanted.choices[0, 0, number] != wanted.choices[1, 0, number]
