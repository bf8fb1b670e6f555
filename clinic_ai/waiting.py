"""Every reason why something waits, each with its sentence and what a person can do about it."""

from __future__ import annotations

import time

from clinic_ai.domain import WaitReason


def day(at: float) -> str:
    """Return the day of a time (UTC seconds) by this machine's clock, such as ``2026-11-21``."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


def addressed(wait: WaitReason, study_id: str) -> WaitReason:
    """Return the reason with the identifier of its study in the commands of its remedy."""
    return wait.model_copy(update={"remedy": wait.remedy.replace("STUDY", study_id)})


def receiving(quiet_s: float) -> WaitReason:
    """Files of the study are still arriving."""
    return WaitReason(
        code="receiving",
        sentence=f"Its files are arriving; it is complete when nothing new came for {quiet_s:g} s.",
    )


def receiving_more(missing: str, wait_s: float) -> WaitReason:
    """Files of the study stopped arriving, and something of it is visibly missing."""
    return WaitReason(
        code="receiving_more",
        sentence=f"Something of it is missing: {missing}. It is complete when nothing new came for {wait_s:g} s.",
        remedy="Nothing is needed; `clinic-ai study close STUDY` goes on with what is there.",
    )


def no_rule() -> WaitReason:
    """No rule and no plugin claims the study."""
    return WaitReason(
        code="no_rule",
        sentence="No routing rule and no plugin takes a study like this one.",
        remedy="See `clinic-ai route explain STUDY`; add a [[routing.rule]] to clinic.toml, reload, then "
        "`clinic-ai study retry STUDY`.",
    )


def originals_removed(removed: int, images: int, on: str) -> WaitReason:
    """Late images came to a study whose originals retention removed."""
    return WaitReason(
        code="originals_removed",
        sentence=f"{removed} of its {images} images were removed by retention on {on}; only what came later is here.",
        remedy="Send the whole study again: what was removed is stored anew, and the study goes on by itself.",
    )


def no_plugin(plugin: str) -> WaitReason:
    """A rule names a plugin that is not installed."""
    return WaitReason(
        code="no_plugin",
        sentence=f"The plugin {plugin} is not installed or cannot be used.",
        remedy=f"Install clinic-ai-{plugin} and start the daemon again; or change the rule that names it, reload, then "
        "`clinic-ai study reroute STUDY`. `clinic-ai doctor` says what is wrong.",
    )


def no_model(plugin: str) -> WaitReason:
    """The plugin has no active model."""
    return WaitReason(
        code="no_model",
        sentence=f"There is no model for {plugin}.",
        remedy="Import one with `clinic-ai model import DIR` and make it active with `clinic-ai model promote`.",
    )


def bad_model(plugin: str, sentence: str) -> WaitReason:
    """The active model's files do not pass verification."""
    return WaitReason(
        code="bad_model",
        sentence=f"The active model of {plugin} cannot be used: {sentence}",
        remedy=f"Restore its files or go back with `clinic-ai model rollback {plugin}`.",
    )


def crashing(plugin: str, times: int, seconds: float) -> WaitReason:
    """The plugin's engine died too often and rests."""
    return WaitReason(
        code="engine_crashing",
        sentence=f"The engine of {plugin} failed {times} times within {seconds:.0f} s; it is tried again in a while.",
        remedy="See the log for how it ended; `clinic-ai model rollback` if it began with a new model.",
    )


def backing_off(attempt: int, seconds: float, sentence: str) -> WaitReason:
    """An attempt failed and the next comes later."""
    return WaitReason(
        code="retry_later",
        sentence=f"Attempt {attempt} failed: {sentence} The next comes in {seconds:.0f} s.",
        remedy="Nothing is needed; `clinic-ai study retry STUDY` tries at once.",
    )


def no_memory(plugin: str, need_mb: int, budget_mb: int) -> WaitReason:
    """The engine needs more memory than the budget can ever give."""
    return WaitReason(
        code="no_memory",
        sentence=f"The engine of {plugin} needs {need_mb} MiB; the budget is {budget_mb} MiB.",
        remedy="Raise execution.memory_mb in clinic.toml, or add memory to the machine.",
    )


def memory_in_use(plugin: str, need_mb: int) -> WaitReason:
    """Other engines are working in the memory this one needs."""
    return WaitReason(
        code="memory_in_use",
        sentence=f"The engine of {plugin} needs {need_mb} MiB that other engines are using just now.",
    )


def no_policy(sentence: str) -> WaitReason:
    """No policy pack could be loaded, so nothing may be said."""
    return WaitReason(
        code="no_policy",
        sentence=f"Nothing may go out without a policy: {sentence}",
        remedy="Correct the pack (`clinic-ai policy test`) and reload; the results wait.",
    )


def held(rule: str, reason: str) -> WaitReason:
    """The guard held the result."""
    return WaitReason(
        code="held",
        sentence=f"The guard held the result (rule {rule}): {reason}",
        remedy="Nothing was delivered. `clinic-ai review list` shows it; a clinician accepts, amends or rejects it.",
    )


def not_signed(why: str) -> WaitReason:
    """A person signed a result, and the signed report could not be made."""
    return WaitReason(
        code="not_signed",
        sentence=f"The signed report could not be made, so nothing is final: {why}",
        remedy="`clinic-ai review list` shows it again; review it once more when the cause is gone.",
    )


def failed(sentence: str, remedy: str = "") -> WaitReason:
    """Every attempt failed."""
    return WaitReason(
        code="failed",
        sentence=sentence,
        remedy=remedy or "`clinic-ai study retry STUDY` tries again once the cause is gone.",
    )


def undelivered(target: str, sentence: str, seconds: float) -> WaitReason:
    """The result is ready and could not be delivered yet."""
    return WaitReason(
        code="undelivered",
        sentence=f"The result is ready but could not be delivered to {target}: {sentence} "
        f"It is tried again in {seconds:.0f} s.",
        remedy="Check that the place exists, may be written to and has space.",
    )
