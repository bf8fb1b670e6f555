"""The keys of ``clinic.toml``: type, default, unit and one comment each.

This file is the only place a key is described. The sample file, the table in ``docs/settings.md`` and the
sentences about mistakes are all made from it. Every key has a default, so an empty file is valid.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clinic_ai.contract import Condition, Glob
from clinic_ai.domain import Key
from clinic_ai.settings.kinds import (
    AETitle,
    CodeString,
    ConditionKey,
    FilePath,
    FolderPath,
    GroupName,
    Language,
    MailAddress,
    Mebibytes,
    Minutes,
    Network,
    PackName,
    PeerName,
    PlainText,
    PluginName,
    Seconds,
    Section,
    SourceName,
    Unit,
    UserName,
    Wait,
)
from clinic_ai.settings.training import TrainingSettings


class ClinicSettings(Section):
    """Who runs this appliance."""

    name: str = Field("", max_length=200, description="Name of the clinic, as it stands on reports and screens.")
    language: Language = Field("en", description="Language of reports; the policy pack must have templates for it.")


class InboxSettings(Section):
    """A watched folder. Repeat the table for each folder.

    Sub-folders are watched too. Below an inbox, folders named MODALITY/BODY_PART say what a PNG or JPEG shows,
    for example inbox/DX/CHEST/scan.png. DICOM files say it themselves.
    """

    name: SourceName = Field("inbox", description="Name of this source; routing rules ask for it as `source`.")
    path: FolderPath = Field("inbox", description="The folder; a relative path starts at the home directory.")
    modality: CodeString = Field(
        "", description="DICOM modality of PNG and JPEG files whose sub-folder does not say it; empty: unknown."
    )
    body_part: CodeString = Field(
        "", description="Body part of PNG and JPEG files whose sub-folder does not say it; empty: unknown."
    )
    settle_s: Seconds = Field(
        0.0, ge=0, le=86400, description="Like ingest.settle_s, for this folder alone; 0: use ingest.settle_s."
    )
    priority: int = Field(0, ge=-100, le=100, description="Studies from a folder with a higher number go first.")
    owner: PlainText = Field(
        "", description="Who looks after what sends here, for alerts, such as the name and number of a desk."
    )


class IngestSettings(Section):
    """How files become studies."""

    rescan_s: Seconds = Field(
        2.0,
        ge=0.1,
        le=3600,
        description="Time between two full looks at the inboxes; hints of the kernel come between.",
    )
    settle_s: Seconds = Field(
        1.0,
        ge=0.05,
        le=86400,
        description="A file is taken when two looks at least this far apart found the same size and time of change.",
    )
    quiet_period_s: Seconds = Field(
        5.0,
        ge=0.1,
        le=86400,
        description="A study is complete when nothing has arrived for it for this long; longer where "
        "ingest.adaptive_quiet finds it necessary.",
    )
    adaptive_quiet: bool = Field(
        True, description="true: learn a longer quiet period for a source whose studies arrive with longer pauses."
    )
    max_quiet_s: Seconds = Field(
        60.0,
        ge=0.1,
        le=86400,
        description="Longest quiet period that is learned; less than ingest.quiet_period_s means that one.",
    )
    gap_wait_s: Seconds = Field(
        30.0,
        ge=0,
        le=86400,
        description="A study of which something is visibly missing, such as an instance number in between, "
        "waits this long for it, if that is longer than its quiet period.",
    )
    deadline_s: Seconds = Field(
        3600.0, ge=1, le=604800, description="A study is closed this long after its first image, complete or not."
    )
    batch: int = Field(50, ge=1, le=1000, description="Files handed to the parser at once.")
    max_file_mb: Mebibytes = Field(4096, ge=1, description="A larger file is quarantined unread.")
    max_pixels: Annotated[int, Unit("pixels")] = Field(
        400_000_000, ge=1, description="An object with more rows × columns × frames than this is quarantined."
    )
    parser_memory_mb: Mebibytes = Field(1024, ge=256, description="Address space of the process that reads headers.")
    parser_timeout_s: Seconds = Field(60.0, ge=1, le=3600, description="Longest time one batch of headers may take.")
    ignore: tuple[Glob, ...] = Field(
        ("*.tmp", "*.part", ".*"), description="File names that are not looked at, as shell patterns."
    )


class DiskSettings(Section):
    """Room on the disk. What comes in never takes the reserve: that is for results, the database and the audit."""

    reserve_mb: Mebibytes = Field(
        1024,
        ge=0,
        description="With less free than this, new files stay in their inbox, and senders and imports are refused.",
    )
    verify_mb_per_hour: Mebibytes = Field(
        0, ge=0, description="Stored objects are read and compared with their hash at this pace; 0: only when asked."
    )


class RetentionSettings(Section):
    """How long originals are kept. Only those of studies whose result was released and delivered are ever removed.

    Headers, results, ledger and audit stay. See docs/disk.md before changing this.
    """

    originals_days: Annotated[int, Unit("days")] = Field(
        0, ge=0, le=36500, description="Originals are removed this long after their result was delivered; 0: never."
    )
    when_free_below_mb: Mebibytes = Field(
        0,
        ge=0,
        description="With less free than this, originals are removed before their time, the oldest first; 0: never. "
        "It has to be more than disk.reserve_mb.",
    )


class QuotaSettings(Section):
    """The most that one kind of data may take; 0: no limit. Beyond it there is an alert that says what to do."""

    originals_mb: Mebibytes = Field(
        0, ge=0, description="Originals. Beyond it retention removes the oldest; if none may go, new files wait."
    )
    results_mb: Mebibytes = Field(0, ge=0, description="Results in the object store.")
    quarantine_mb: Mebibytes = Field(
        0, ge=0, description="Quarantine. Beyond it those inboxes and senders wait whose files fill it."
    )
    outbox_mb: Mebibytes = Field(0, ge=0, description="Delivered results in the outbox.")
    datasets_mb: Mebibytes = Field(0, ge=0, description="Frozen datasets.")
    runs_mb: Mebibytes = Field(0, ge=0, description="Training runs with their checkpoints.")
    models_mb: Mebibytes = Field(0, ge=0, description="Models.")
    backups_mb: Mebibytes = Field(0, ge=0, description="Backups of the database.")
    logs_mb: Mebibytes = Field(0, ge=0, description="Log files.")
    database_mb: Mebibytes = Field(0, ge=0, description="The database.")


class PeerSettings(Section):
    """A machine that may send. Repeat the table for each; nobody else is let in, so without one nobody is."""

    name: PeerName = Field("", description="Name of this source; routing rules ask for it as `source`.")
    ae_title: AETitle = Field("", description="AE title it calls itself by; capital and small letters differ.")
    host: str = Field(
        "*",
        max_length=64,
        description="Address it calls from, or a network such as 192.168.7.0/24; *: any machine that knows the title.",
    )
    priority: int = Field(0, ge=-100, le=100, description="Studies from a sender with a higher number go first.")


class NetworkSettings(Section):
    """Receiving scans over the network by DICOM C-STORE. See docs/connecting-a-pacs.md before switching it on."""

    enabled: bool = Field(False, description="true: listen for senders.")
    ae_title: AETitle = Field("CLINIC_AI", description="AE title that senders have to call.")
    bind: str = Field("0.0.0.0", max_length=64, description="Address to listen at; 0.0.0.0: all of IPv4, ::: IPv6.")  # noqa: S104 - off by default, and only peers are let in
    port: int = Field(11112, ge=1, le=65535, description="TCP port to listen at.")
    max_associations: int = Field(16, ge=1, le=100, description="Connections at the same time.")
    max_pdu: Annotated[int, Unit("bytes")] = Field(
        131072, ge=4096, le=1048576, description="Largest piece a sender may send at once; larger ones are faster."
    )
    timeout_s: Seconds = Field(60.0, ge=1, le=3600, description="A sender that is silent for this long is cut off.")
    tls_certificate: FilePath = Field(
        "", description="PEM file of the appliance's certificate; a relative path starts at the home directory."
    )
    tls_key: FilePath = Field("", description="PEM file of its private key, without a password.")
    tls_ca: FilePath = Field(
        "", description="PEM file of the authority that signed the senders' certificates; TLS needs all three files."
    )
    peer: tuple[PeerSettings, ...] = Field(
        (),
        description="Who may send.",
        examples=[PeerSettings(name="ct room", ae_title="CT_ROOM_1", host="192.168.7.20")],
    )


class RoutingRule(Section):
    """Sends studies that look like `when` to plugins. Repeat the table for each rule; file order counts."""

    name: SourceName = Field("", description="Name of the rule, shown with every result.")
    plugins: tuple[PluginName, ...] = Field((), description="Plugins that analyse the study, by name.")
    enabled: bool = Field(True, description="false: the rule is skipped.")
    priority: int = Field(
        0, ge=-100, le=100, description="Its jobs go before those with a lower number; mode `priority` decides by it."
    )
    when: Condition = Field(
        default=Condition(),
        description="What the study must look like. Every key given must match, one entry of a list is enough, "
        "* and ? stand for any characters and for one; an empty table matches every study.",
    )


class RoutingSettings(Section):
    """Which plugin sees which study."""

    mode: Literal["first", "all", "priority"] = Field(
        "first",
        description="first: the first matching rule decides; all: every matching rule adds its plugins; "
        "priority: the matching rule with the highest priority decides.",
    )
    use_claims: bool = Field(
        True, description="true: a study that no rule matches goes to the plugins that claim such studies."
    )
    rule: tuple[RoutingRule, ...] = Field(
        (),
        description="The rules, in order.",
        examples=[
            RoutingRule(
                name="chest x-rays",
                plugins=("xray",),
                when=Condition(modality=("CR", "DX"), body_part=("CHEST", "THORAX")),
            )
        ],
    )


class ExecutionSettings(Section):
    """How jobs run."""

    max_attempts: int = Field(3, ge=1, le=20, description="A job that failed this often is given up.")
    backoff_s: Annotated[tuple[Wait, ...], Unit("seconds")] = Field(
        (5.0, 30.0, 120.0),
        min_length=1,
        max_length=20,
        description="Waits before the second, third … attempt; the last one repeats.",
    )
    max_parallel_jobs: int = Field(1, ge=1, le=64, description="Jobs that run at the same time.")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of each engine; 0: the cores shared out fairly.")
    engine_idle_s: Seconds = Field(
        900.0, ge=0, le=604800, description="An engine unused for this long is stopped; its next study loads it again."
    )
    memory_mb: Mebibytes = Field(
        0, ge=0, description="Memory all engines together may use; 0: 60 % of the machine's memory."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where engines compute; auto: on a GPU that has room for the engine, else on the processor.",
    )
    max_restarts: int = Field(
        5,
        ge=1,
        le=1000,
        description="An engine or the guard that died this often within restart_window_s is left alone and reported.",
    )
    restart_window_s: Seconds = Field(60.0, ge=1, le=86400, description="The period in which restarts are counted.")


class GuardSettings(Section):
    """What may be said. A guard that fails holds the result back; no setting changes that."""

    pack: PackName = Field("default", description="Folder of the policy pack, in policies/ of the home directory.")
    timeout_s: Seconds = Field(
        10.0, ge=0.1, le=600, description="Longest time the guard may take for one report; later means hold."
    )


class CriticalSettings(Section):
    """A finding that somebody has to be told of. Repeat the table for each; without one nothing is critical.

    See docs/critical-findings.md. Exactly one of `condition` and `term` says what it is.
    """

    condition: ConditionKey = Field("", description="Condition of the table of codes, as plugins name it.")
    term: PlainText = Field(
        "",
        description="Words in what a model wrote, in capitals or not; “no” or “without” right before them is heeded.",
    )
    category: int = Field(1, ge=1, le=3, description="1: act within minutes, 2: within hours, 3: within days.")
    uncertain: bool = Field(
        True, description="true: also a finding that the model leaves open; false: only one it calls present."
    )
    repeat_min: Annotated[tuple[Minutes, ...], Unit("minutes")] = Field(
        (),
        max_length=50,
        description="Waits before the second, third … notice; the last one repeats until a person acknowledges. "
        "Empty: by category, 1: 5, 5, 10, 15 …, 2: 60, 3: 1440.",
    )
    escalate_after: int = Field(
        3, ge=0, le=1000, description="A notice after this many says that nobody reacted, and goes to more; 0: never."
    )
    escalate_to: tuple[MailAddress, ...] = Field((), description="Who gets that notice by e-mail too.")


class WebhookSettings(Section):
    """Notices of critical findings as JSON, by HTTP POST. They hold no personal data and not what was found."""

    url: PlainText = Field("", description="Where to, such as https://192.168.7.9/alarm; empty: off.")
    token_file: FilePath = Field(
        "", description="File with a token, sent as `Authorization: Bearer`; a relative path starts at the home."
    )
    ca: FilePath = Field("", description="PEM file of the authority of an https server; empty: those of the system.")


class EmailSettings(Section):
    """Notices of critical findings by e-mail. They hold no personal data and not what was found."""

    host: PlainText = Field("", description="The mail server; empty: off.")
    port: int = Field(25, ge=1, le=65535, description="Its TCP port.")
    tls: Literal["none", "starttls", "tls"] = Field("starttls", description="How the connection is encrypted.")
    ca: FilePath = Field("", description="PEM file of the authority of the server; empty: those of the system.")
    user: PlainText = Field("", description="Name to log in with; empty: no login.")
    password_file: FilePath = Field("", description="File with the password; a relative path starts at the home.")
    sender: MailAddress = Field("", description="Address the notices come from.")
    to: tuple[MailAddress, ...] = Field((), description="Who gets every notice.")


class NotifySettings(Section):
    """How people are told of critical findings beyond screens. See docs/critical-findings.md."""

    networks: tuple[Network, ...] = Field(
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"),
        description="Only servers with an address in these networks are spoken to.",
    )
    timeout_s: Seconds = Field(5.0, ge=0.1, le=9, description="A server that is silent for this long is given up.")
    webhook: WebhookSettings = Field(WebhookSettings(), description="Notices as JSON, by HTTP POST.")
    email: EmailSettings = Field(EmailSettings(), description="Notices by e-mail.")


class ReviewSettings(Section):
    """Who signs results, and whether models may learn from it."""

    reviewers: tuple[PlainText, ...] = Field(
        (),
        description='Names that clinicians may sign with, such as "Dr. A. Example"; empty: each signs with the name '
        "of the own Unix user, root and the daemon's user not at all.",
    )
    consent_default: bool = Field(
        False, description="true: models may learn from a review unless the reviewer says otherwise."
    )


class ResultsSettings(Section):
    """What goes out."""

    outbox: FolderPath = Field("outbox", description="Folder of results; a relative path starts at the home directory.")
    institution: str = Field(
        "", max_length=64, description="Institution named in reports and DICOM objects; empty: clinic.name."
    )


class ControlSettings(Section):
    """Who may do what. root and the user the daemon runs as are always administrators."""

    group: GroupName = Field(
        "", description="Unix group that may open the sockets; empty: the daemon's own. Changed by a restart only."
    )
    technicians: tuple[UserName, ...] = Field((), description="Unix users who see states and metadata.")
    clinicians: tuple[UserName, ...] = Field((), description="Unix users who also read, correct and sign results.")
    administrators: tuple[UserName, ...] = Field((), description="Unix users who also change models and settings.")


class LogSettings(Section):
    """What the log says. It never holds personal data."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least important entry kept.")
    format: Literal["json", "console"] = Field("json", description="json for machines, console for people.")


class QuestionSettings(Section):
    """Questions about images, and who answers them."""

    base_answers: bool = Field(
        False,
        description="true: the base model answers about categories that nobody trained an adapter for, and says so.",
    )
    answer_timeout_s: Seconds = Field(60.0, ge=1, le=3600, description="Longest time one answer may take.")


class CategoryRule(Section):
    """Says which category images are of; the first rule that fits counts, before folders and DICOM headers do."""

    plugin: PluginName = Field("ultrasound", description="Plugin that has the category.")
    category: Key = Field("femur", description="Key of the category, as `clinic-ai plugin categories` lists it.")
    when: Condition = Field(
        Condition(), description="What the study must look like; every key given must match, none matches every study."
    )


class Settings(Section):
    """Everything the clinic decides; see ``docs/settings.md``."""

    clinic: ClinicSettings = ClinicSettings()
    inbox: tuple[InboxSettings, ...] = Field((InboxSettings(),), min_length=1, description="The watched folders.")
    ingest: IngestSettings = IngestSettings()
    network: NetworkSettings = NetworkSettings()
    disk: DiskSettings = DiskSettings()
    retention: RetentionSettings = RetentionSettings()
    quota: QuotaSettings = QuotaSettings()
    routing: RoutingSettings = RoutingSettings()
    execution: ExecutionSettings = ExecutionSettings()
    guard: GuardSettings = GuardSettings()
    critical: tuple[CriticalSettings, ...] = Field(
        (), description="What is critical.", examples=[CriticalSettings(condition="pneumothorax", category=1)]
    )
    notify: NotifySettings = NotifySettings()
    review: ReviewSettings = ReviewSettings()
    results: ResultsSettings = ResultsSettings()
    control: ControlSettings = ControlSettings()
    log: LogSettings = LogSettings()
    questions: QuestionSettings = QuestionSettings()
    category: tuple[CategoryRule, ...] = Field(
        (), description="Categories by rule.", examples=[CategoryRule(when=Condition(station=("US_ROOM_2",)))]
    )
    training: TrainingSettings = TrainingSettings()
