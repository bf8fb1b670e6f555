"""Mistakes in the list of critical findings and in the ways out are said, with what to write instead."""

from __future__ import annotations

import pytest

from clinic_ai.critical.channels import channels_of
from clinic_ai.errors import SettingsError
from clinic_ai.settings import parse_settings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[critical]]\ncategory = 1", "critical[1].condition: the entry names both or neither"),
        ("[[critical]]\ncondition = 'a'\nterm = 'b'", "critical[1].condition: the entry names both or neither"),
        ("[[critical]]\ncondition = 'a'\ncategory = 4", "critical[1].category"),
        ("[[critical]]\ncondition = 'a'\nrepeat_min = [0]", "critical[1].repeat_min"),
        ("[[critical]]\ncondition = 'a'\nescalate_to = ['nobody']", "is not an e-mail address"),
        ("[notify.webhook]\nurl = 'alarm.lan'", "notify.webhook.url: no web server has this address"),
        ("[notify.webhook]\nurl = 'http://u:p@alarm.lan/'", "notify.webhook.url: no web server has this address"),
        ("[notify]\nnetworks = ['10.0.0.0/99']", "is no network"),
        ("[notify.email]\nhost = 'mail'\nto = ['a@b.example']", "notify.email.sender: the notices have no sender"),
        ("[notify.email]\nhost = 'mail'\nsender = 'a@b.example'", "notify.email.to: the notices go to nobody"),
        ("[notify.email]\nuser = 'u'", "notify.email.password_file: a login needs"),
    ],
)
def test_a_mistake_is_said_where_it_is(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text)
    assert any(words in problem for problem in caught.value.problems), caught.value.problems


def test_everything_is_off_unless_it_is_switched_on() -> None:
    settings = parse_settings("")
    assert settings.critical == ()
    assert channels_of(settings.notify) == ()
