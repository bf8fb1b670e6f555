"""What ``clinic-ai doctor`` says about training."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinic_ai.cli.doctor_training import training
from clinic_ai.hardware import Machine
from clinic_ai.home import Home, init_home
from clinic_ai.settings import parse_settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "h")


def said(home: Home, text: str, name: str) -> tuple[str, str]:
    (found,) = [
        check for check in training(parse_settings(text), Machine(home.path, root=home.path)) if check.name == name
    ]
    assert (found.verdict == "ok") == (found.remedy == "")
    return found.verdict, found.sentence


def test_a_disk_or_memory_that_is_too_small_for_training_is_told(home: Home) -> None:
    assert said(home, "[training.budget]\ndisk_reserve_mb = 0", "training disk")[0] == "ok"
    verdict, sentence = said(home, "[training.budget]\ndisk_reserve_mb = 1000000000", "training disk")
    assert verdict == "warn"
    assert "1000000000 MiB free: nothing is trained" in sentence
    assert said(home, "[training]\nmax_memory_mb = 256", "training memory")[0] == "ok"
    assert said(home, "[training]\nmax_memory_mb = 1000000000", "training memory")[0] == "warn"


def test_windows_and_plans_that_do_not_fit_are_told(home: Home) -> None:
    assert said(home, "", "windows") == ("ok", "Nothing is trained by itself; runs that people start begin at once.")
    assert said(home, "[[training.plan]]\nplugin = 'xray'", "windows")[0] == "warn"
    always = "[[training.window]]\nstart = '00:00'\nend = '12:00'\n[[training.window]]\nstart = '12:00'\nend = '00:00'"
    assert said(home, always, "windows") == ("ok", "A training window is open now.")
    past = "training.holidays = ['2020-12-25']\n[[training.window]]\ndays = ['holiday']"
    assert said(home, past, "windows") == ("warn", "No training window opens within a year.")


def test_a_gpu_that_is_asked_for_and_not_there_is_a_fault(home: Home) -> None:
    assert said(home, "[training]\ndevice = 'cpu'", "gpu")[0] == "ok"
    verdict, sentence = said(home, "[training]\ndevice = 'cuda'\n[execution]\ndevice = 'cuda'", "gpu")
    assert verdict == "fail"
    assert "execution.device and training.device" in sentence


def test_a_home_that_cannot_be_read_is_told_and_nothing_else(tmp_path: Path) -> None:
    (found,) = training(parse_settings(""), Machine(tmp_path / "gone"))
    assert (found.name, found.verdict) == ("sensors", "fail")
