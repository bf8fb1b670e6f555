"""What the clinic decides in ``clinic.toml``: the model, the reader that explains mistakes, the sample file."""

from clinic_ai.settings.load import load_settings, parse_settings
from clinic_ai.settings.model import (
    ClinicSettings,
    ControlSettings,
    DiskSettings,
    ExecutionSettings,
    GuardSettings,
    InboxSettings,
    IngestSettings,
    LogSettings,
    NetworkSettings,
    PeerSettings,
    QuotaSettings,
    ResultsSettings,
    RetentionSettings,
    RoutingRule,
    RoutingSettings,
    Settings,
    TrainingSettings,
)
from clinic_ai.settings.render import render_default, render_table

__all__ = [
    "ClinicSettings",
    "ControlSettings",
    "DiskSettings",
    "ExecutionSettings",
    "GuardSettings",
    "InboxSettings",
    "IngestSettings",
    "LogSettings",
    "NetworkSettings",
    "PeerSettings",
    "QuotaSettings",
    "ResultsSettings",
    "RetentionSettings",
    "RoutingRule",
    "RoutingSettings",
    "Settings",
    "TrainingSettings",
    "load_settings",
    "parse_settings",
    "render_default",
    "render_table",
]
