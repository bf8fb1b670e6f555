"""What passes between the daemon and its own children: parser, deidentifier, sheets, receiver, guard, renderer.

Plugins see none of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from clinic_ai.contract import Condition
from clinic_ai.domain import (
    Audience,
    CloseCode,
    Distance,
    Finding,
    GuardAction,
    GuardVerdict,
    ImageFacts,
    InstanceHeader,
    Key,
    Mask,
    ModelRef,
    PatientIdentity,
    Probability,
    Segmentation,
    Sha256,
    Statement,
    StudyFacts,
    Word,
    Words,
)
from clinic_ai.domain.reviews import SignOff


class ParseTask(Word):
    """Files to read headers of; absolute paths. The caps refuse what would hurt whoever decodes it."""

    paths: tuple[str, ...]
    max_pixels: int = 400_000_000
    """Largest Rows × Columns × NumberOfFrames."""
    digest: bool = False
    """Whether to hash image data and data set too, to compare files."""


class Problem(Word):
    """Why a file is not usable: a stable code, a sentence, and what to do."""

    code: Key
    sentence: str
    remedy: str


class ParsedFile(Word):
    """The header of one file, or its problem."""

    path: str
    header: InstanceHeader | None = None
    problem: Problem | None = None
    pixels: Sha256 | None = None
    """SHA-256 of the image data as they lie in the file, if it was asked for and there are any to be compared."""
    dataset: Sha256 | None = None
    """SHA-256 of all but preamble and file meta information, with the transfer syntax, if it was asked for."""


class ParseResult(Word):
    """One entry for each path of the task, in its order."""

    files: tuple[ParsedFile, ...]


class Peer(Word):
    """Who may send: a name, which is also the folder of its objects, its AE title, and an address, network or ``*``."""

    name: str
    ae_title: str
    host: str


class ListenTask(Word):
    """Listen for senders. Objects go to ``folder/<name of the peer>``, which are there already."""

    bind: str
    port: int
    ae_title: str
    peers: tuple[Peer, ...]
    folder: str
    reserve_bytes: int
    """Free space on the disk of ``folder`` below which objects are refused."""
    max_bytes: int
    """Size of a file above which an object is refused."""
    max_pdu: int
    max_associations: int
    timeout_s: float
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""


class Listening(Word):
    """The receiver listens at this port."""

    port: int


class AttendTask(Word):
    """Tell what happened since the last time, at the latest after ``wait_s``.

    ``waiting`` are the names of peers whose objects are refused for now, for want of room.
    """

    wait_s: float
    waiting: tuple[str, ...] = ()


class Caller(Word):
    """Who called: the AE title it gave, cleaned of what does not print, and its address."""

    ae_title: str
    address: str
    peer: str = ""


class AssociationEnd(Word):
    """How an association ended, and how many objects were answered with success and how many were refused."""

    caller: Caller
    released: bool
    stored: int
    refused: int


class Refusal(Word):
    """Associations or objects that were refused, all for one reason of ``clinic_ai.ingest.receiving``."""

    caller: Caller
    reason: Key
    count: int


class AttendReport(Word):
    """What happened since the last report: associations refused, objects refused, objects stored, and how many
    associations are open now."""

    opened: tuple[Caller, ...] = ()
    ended: tuple[AssociationEnd, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    objects: tuple[Refusal, ...] = ()
    stored: int = 0
    open: int = 0


DEIDENTIFICATION_PROFILE = 2
"""Counts up whenever the same original gives another copy; part of what copies are remembered by."""


CopyKind = Literal["image", "nifti", "npz", "report"]


class DeidentifyFile(Word):
    """An original, by its absolute path and the hash of its bytes; the copy gets the name of the hash."""

    path: str
    sha256: Sha256
    kind: CopyKind = "image"


class DeidentifyTask(Word):
    """Write de-identified copies of these files into ``output_directory``.

    ``key`` is derived from the site's for this purpose: 64 hexadecimal digits. No copy or unpacked original may be
    larger than ``max_file_bytes``.
    """

    files: tuple[DeidentifyFile, ...]
    output_directory: str
    key: Sha256
    max_file_bytes: int
    max_pixels: int = 400_000_000


class Flag(Word):
    """What a person should look at before an image is passed on: a stable code and a sentence."""

    code: Key
    sentence: str


class DeidentifiedFile(Word):
    """What became of one file: the hash of its copy (of an image its header too) with its flags, or why there is none.

    ``groups`` is for datasets of this house alone and never goes out with a copy; see ``contract.Example``.
    """

    original_sha256: Sha256
    sha256: Sha256 | None = None
    header: InstanceHeader | None = None
    flags: tuple[Flag, ...] = ()
    groups: dict[str, str] = Field(default_factory=dict)
    problem: Problem | None = None


class DeidentifyResult(Word):
    """One entry for each file of the task, in its order."""

    files: tuple[DeidentifiedFile, ...]


class SheetTask(Word):
    """Read the workbook (.xlsx) at this absolute path; without one, only say that the child works."""

    path: str = ""


MAX_CELL = 2000
"""Characters of a cell that are passed on; a longer text is cut."""


class SheetCell(Word):
    """A filled cell in the column with these letters. ``text`` is what it shows; of a formula, its beginning."""

    column: Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,3}$")]
    kind: Literal["text", "number", "date", "formula", "error"] = "text"
    text: str = Field(max_length=MAX_CELL)


class SheetRow(Word):
    """A row that has filled cells, from left to right; ``number`` counts from 1, as the program shows it."""

    number: int = Field(ge=1)
    hidden: bool = False
    cells: tuple[SheetCell, ...]


class Sheet(Word):
    """One sheet of a workbook. What several rows have in common in a merged cell stands in each of them."""

    title: str = Field(max_length=100)
    hidden: bool = False
    merged: int = 0
    """Merged ranges that reach over more than one row."""
    rows: tuple[SheetRow, ...] = ()


class Workbook(Word):
    """What a workbook says, sheet by sheet in its order."""

    sheets: tuple[Sheet, ...]


class SheetForm(Word):
    """Write a workbook for people to fill in into ``output_directory``; the first of its rows is the header."""

    output_directory: str
    title: str = Field(max_length=31)
    rows: tuple[tuple[str, ...], ...]


class SheetMade(Word):
    """The name of the workbook that was written."""

    name: str


class GuardLoad(Word):
    """Load and test the policy pack in this directory."""

    directory: str


class PackInfo(Word):
    """A pack that loaded and passed its own cases; ``digest`` covers every byte of it."""

    name: str
    version: str
    digest: Sha256
    rules: tuple[str, ...]
    cases: int


_SHOWN = 80
"""Characters of a case's text that are shown."""


class CaseOutcome(Word):
    """How one case of a pack went; ``sentence`` says what is wrong, empty if it passed.

    ``number`` counts from 1 in ``file``, such as ``cases.toml`` or ``cases.toml of default``.
    """

    file: str = "cases.toml"
    number: int
    rule: str
    kind: str
    text: str = ""
    """What was judged."""
    passed: bool
    sentence: str = ""

    @property
    def failure(self) -> str:
        """What is wrong, in one sentence with the place and the beginning of the text."""
        shown = self.text if len(self.text) <= _SHOWN else f"{self.text[: _SHOWN - 1]}…"
        return f"{self.file}, case {self.number} of rule {self.rule} ({self.kind}): {self.sentence}: {shown!r}"


class CaseReport(Word):
    """All cases of a pack, and what else keeps it from loading: rules without cases, templates unfit to read."""

    pack: PackInfo
    outcomes: tuple[CaseOutcome, ...]
    problems: tuple[str, ...] = ()


class RuleCoverage(Word):
    """A rule, and the cases that prove it; ``fires_on`` counts all cases of the pack on which it fires, from 1."""

    rule: str
    row: int
    hazard: str
    audiences: tuple[Audience, ...]
    action: GuardAction
    firing: int
    non_firing: int
    mutations: int
    fires_on: tuple[int, ...]


class PackDescription(Word):
    """A pack for people to look at: rules, number of terms in each word list, languages."""

    pack: PackInfo
    rules: tuple[RuleCoverage, ...]
    cases: tuple[str, ...] = ()
    """Where each case stands that ``fires_on`` counts: file and number in it, such as ``cases.toml 4``."""
    terms: dict[str, int]
    languages: tuple[str, ...]


class GuardCompare(Word):
    """Compare the policy packs in these two directories."""

    old: str
    new: str


class PackChange(Word):
    """A place in a pack, or a text it judges, and what is otherwise than in another pack."""

    where: str
    what: str


class PackDifference(Word):
    """What sets two packs apart: in what they say, and in what becomes of the ``cases`` texts of both."""

    old: PackInfo
    new: PackInfo
    changes: tuple[PackChange, ...]
    outcomes: tuple[PackChange, ...]
    cases: int


class PluginScope(Word):
    """What studies a plugin was made for; without claims it never said."""

    plugin: Key
    claims: tuple[Condition, ...] = ()


class GuardSubject(Word):
    """What statements are checked against.

    ``validated`` is false while any model lacks a clinical record, ``reference`` true unless every model is
    known not to be a reference model. ``facts`` has modality, body part and number of slices.
    """

    facts: StudyFacts
    identity: PatientIdentity = PatientIdentity()
    findings: tuple[Finding, ...] = ()
    masks: tuple[Mask, ...] = ()
    image: ImageFacts = ImageFacts()
    scopes: tuple[PluginScope, ...] = ()
    """Of each plugin that judged the study."""
    distances: tuple[Distance, ...] = ()
    """As far as models handed any over."""
    validated: bool = False
    reference: bool = True
    signed_by: str = ""
    own_words: bool = False
    """Whether the person named in ``signed_by`` has read the words and takes them for the own."""
    language: str = "en"


class GuardTask(Word):
    """Judge these statements for this audience under the pack with this digest."""

    audience: Audience
    subject: GuardSubject
    statements: tuple[Statement, ...]
    policy_hash: Sha256


class RenderImage(Word):
    """An image to show: the stored object, and the heat map to lay over it if there is one.

    ``extent`` is (top, left, bottom, right) in 0..1 of the image that the heat map covers.
    """

    path: str
    sha256: Sha256
    header: InstanceHeader
    heatmap_path: str | None = None
    heatmap_caption: str = ""
    extent: tuple[Probability, Probability, Probability, Probability] = (0.0, 0.0, 1.0, 1.0)


class StoredSegmentation(Word):
    """A segmentation of an analysis and the stored file with its masks."""

    path: str
    segmentation: Segmentation


class Outlines(Word):
    """What one analysis measured and outlined; ``findings`` are the places of its own among those of the task."""

    plugin: Key
    findings: tuple[int, ...]
    masks: tuple[Mask, ...] = ()
    segmentations: tuple[StoredSegmentation, ...] = ()


class AnswerOrigin(Word):
    """What an answer is about and who gave it; its words stand in the verdict, under ``statement_id``."""

    statement_id: Key
    question: Words
    """One that the plugin declares; of nobody else's words."""
    instance_sha256: Sha256 | None = None
    frame: int | None = None
    """Counted from 0; None for an object of one frame."""
    category: str = ""
    adapter: str = ""
    """Slot of the adapter that answered; empty if the base did."""
    confidence: Probability | None = None


class RenderTask(Word):
    """Make the artefacts of one study version into ``output_directory``: pictures, report.pdf, report.sr.dcm."""

    study_id: str
    version: int
    study_instance_uid: str
    close_code: CloseCode | None = None
    closed_reason: str
    remarks: tuple[str, ...] = ()
    """What has to be said of how the study was put together, in sentences of the appliance's own."""
    source: str
    facts: StudyFacts
    identity: PatientIdentity
    received_at: float
    created_at: float
    images: tuple[RenderImage, ...]
    findings: tuple[Finding, ...]
    verdict: GuardVerdict
    models: tuple[ModelRef, ...]
    plugin_labels: tuple[str, ...]
    """``name version`` of each plugin that analysed the study."""
    institution: str
    language: str
    output_directory: str
    software: str
    answers: tuple[AnswerOrigin, ...] = ()
    outlines: tuple[Outlines, ...] = ()
    sign_off: SignOff | None = None
    """Who signed what is rendered; None for the software's own, which is preliminary."""
    decode: bool = True
    """False once a decoder killed the renderer on this study: the report then comes without pictures."""

    def image_numbers(self) -> dict[str, int]:
        """Return by its SHA-256 the number, from 1, by which people name each image that has pixels."""
        pictures = (image.sha256 for image in self.images if image.header.is_picture)
        return {sha256: number for number, sha256 in enumerate(pictures, start=1)}


class RenderedFile(Word):
    """A file the renderer made in its job directory."""

    name: str
    media_type: str


class RenderResult(Word):
    """What was made, and in words what could not be (an SR of a PNG, say)."""

    files: tuple[RenderedFile, ...]
    omissions: tuple[str, ...] = ()
