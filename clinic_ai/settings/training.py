"""The keys about training: what a run may use, when and what is trained, within which budget, and what is promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clinic_ai.settings.kinds import (
    ClockTime,
    ConditionKey,
    IsoDate,
    KilowattHours,
    Mebibytes,
    PlainText,
    PluginName,
    RecipePair,
    Seconds,
    Section,
    Unit,
    Weekday,
)


class TrainingWindow(Section):
    """When the appliance may train by itself, and when runs go on that nobody started with --now. Repeat the table.

    Times are those of the machine's time zone; a window that ends before it starts ends on the next day.
    Days and holidays are those on which it starts. Without a window nothing is trained by itself, and runs
    that people start begin at once.
    """

    start: ClockTime = Field("22:00", description="When it opens.")
    end: ClockTime = Field("06:00", description="When it closes.")
    days: tuple[Weekday, ...] = Field(
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"),
        min_length=1,
        description="Days it opens on; a day of training.holidays counts as `holiday` alone.",
    )


class TrainingBudget(Section):
    """What training may use in all, and the state of the machine it needs. What it costs is kept in a ledger.

    Checked before a run starts and all the time while it works: beyond a limit it is paused with a checkpoint.
    """

    kwh_per_night: KilowattHours = Field(0.0, ge=0, description="Energy of one night, noon to noon; 0: no limit.")
    kwh_per_year: KilowattHours = Field(0.0, ge=0, description="Energy of one calendar year; 0: no limit.")
    pf_days_per_year: Annotated[float, Unit("PF-days")] = Field(
        0.0, ge=0, description="Computation of one calendar year, in days at 10^15 operations a second; 0: no limit."
    )
    money_per_year: float = Field(0.0, ge=0, description="Cost of the energy of one calendar year; 0: no limit.")
    price_per_kwh: float = Field(0.30, ge=0, description="What a kilowatt-hour costs.")
    currency: PlainText = Field("EUR", description="Currency of the two.")
    assumed_watts: Annotated[float, Unit("watts")] = Field(
        65.0, gt=0, description="Power of a busy processor where the machine does not measure it."
    )
    hottest_c: Annotated[float, Unit("degrees Celsius")] = Field(
        85.0, ge=30, le=110, description="At this temperature of GPU or processor a run is paused."
    )
    resume_below_c: Annotated[float, Unit("degrees Celsius")] = Field(
        75.0, ge=20, le=110, description="It goes on once both are cooler than this."
    )
    gpu_memory_mb: Mebibytes = Field(0, ge=0, description="Memory of the GPU that training may use; 0: all of it.")
    free_memory_mb: Mebibytes = Field(1024, ge=0, description="Memory that has to stay free beside a run.")
    disk_reserve_mb: Mebibytes = Field(51200, ge=0, description="Space that has to stay free on the home's disk.")
    mains_only: bool = Field(True, description="true: no training on battery, or while the UPS says it is on battery.")
    stalled_s: Seconds = Field(
        300.0, ge=10, le=86400, description="A run whose GPU, or processor, did nothing for this long has stalled."
    )


class TrainingGate(Section):
    """What a candidate has to show beside the model in use before it may become active."""

    improvement: Literal["proven", "not_worse"] = Field(
        "proven",
        description="proven: better on the test patients, the 95 % interval of the difference above zero. "
        "not_worse: no worse beyond that interval.",
    )
    largest_loss: float = Field(
        0.0,
        ge=0,
        le=1,
        description="With not_worse: how much lower the main figure may be at most.",
    )
    subgroup_loss: float = Field(
        0.05, ge=0, le=1, description="How much lower the main figure may be in any subgroup of patients or scanners."
    )
    approval: bool = Field(
        True, description="true: only a named person makes a candidate active; false: what passes becomes active."
    )


class TrainingPlanEntry(Section):
    """What is trained in the windows by itself. Repeat the table; without one nothing is."""

    plugin: PluginName = Field("xray", description="Plugin that learns.")
    condition: ConditionKey = Field("", description="What it learns, where it has several conditions.")
    category: ConditionKey = Field("", description="What it learns, where it learns answers by category.")
    sources: tuple[Literal["reviews", "labels"], ...] = Field(
        ("reviews", "labels"),
        min_length=1,
        description="reviews: what people corrected and signed; labels: the folder labels/PLUGIN of the home.",
    )
    min_new: int = Field(20, ge=1, description="New labelled images since its last run that make a run worth it.")
    every_days: Annotated[float, Unit("days")] = Field(
        7.0, ge=0, le=365, description="Least time between the starts of two of its runs."
    )
    priority: int = Field(0, ge=-100, le=100, description="Higher numbers are trained first.")
    recipe: tuple[RecipePair, ...] = Field((), description="Recipe of the run, as `train run --set` takes it.")


class TrainingSettings(Section):
    """What one training run may use, and what it learns from."""

    max_memory_mb: Mebibytes = Field(4096, ge=256, description="Memory of a training run.")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of a training run.")
    max_seconds: Seconds = Field(
        3600.0, ge=1, le=604800, description="A run is stopped after this long; it can resume."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where runs compute; auto: on the first GPU if there is one, else on the processor."
    )
    grace_s: Seconds = Field(
        4.0, ge=0.1, le=600, description="Time a run has to write a checkpoint while a study waits; then it is killed."
    )
    quiet_s: Seconds = Field(
        60.0, ge=0, le=86400, description="A paused run goes on once no study has waited for this long."
    )
    holidays: tuple[IsoDate, ...] = Field((), description="Days that count as `holiday` for the windows.")
    burned_in: Literal["leave_out", "keep"] = Field(
        "leave_out",
        description="What becomes, in a dataset, of DICOM images whose header says that text identifying the patient "
        "is burnt in.",
    )
    budget: TrainingBudget = TrainingBudget()
    gate: TrainingGate = TrainingGate()
    window: tuple[TrainingWindow, ...] = Field(
        (), description="Windows.", examples=[TrainingWindow(start="22:00", end="06:00")]
    )
    plan: tuple[TrainingPlanEntry, ...] = Field(
        (), description="What is trained by itself.", examples=[TrainingPlanEntry(recipe=("epochs=10",))]
    )


def recipe_value(text: str) -> float | int | str | bool:
    """Return a number or truth value where the text is one."""
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
