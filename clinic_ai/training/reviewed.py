"""What people signed, as labelled images: findings they confirmed or corrected, and answers in their final words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from clinic_ai.contract import PluginManifest
from clinic_ai.domain import LeftOutReason, QuestionAnswer
from clinic_ai.results.answers import SignedAnswer, signed_answers, written
from clinic_ai.store import jobs, studies
from clinic_ai.store.database import Database
from clinic_ai.store.objects import ObjectStore
from clinic_ai.store.reviews import SignedStudy, answered_reviews, labelled_examples, reviews_of_version
from clinic_ai.training.labelled_folder import FileBeside, LabelledImage, Reading, counted
from clinic_ai.training.sheet_layout import same_question

_REMEMBERED = 500
"""Studies whose series are remembered."""
_WHY = {
    LeftOutReason.FRAME: "are about a later frame of a loop, and a dataset can only name the first",
    LeftOutReason.NOBODYS_WORDS: "were signed in words of the guard, which nobody gave as an answer",
}


class Reviewed:
    """Reads what was signed and may be learned from. Safe to call from several threads."""

    def __init__(self, database: Database, originals: ObjectStore) -> None:
        self._database = database
        self._originals = originals
        self._answers: dict[str, tuple[tuple[SignedAnswer, ...], int]] = {}
        """By the id of their review; a review is never changed but for its consent."""
        self._series: dict[tuple[str, int], dict[str, tuple[str, ...]]] = {}

    def read(self, manifest: PluginManifest, category: str, reading: Reading) -> list[LabelledImage]:
        """Return the images with what was signed of them, the oldest review first; say in ``reading`` what is missing.

        ``category`` is that of the answers, for a plugin that learns from answers.
        """
        match manifest.labels:
            case "answers":
                images = self._pairs(category, reading)
            case "volumes":
                images = self._volumes(manifest)
            case _:
                images = self._labels(manifest)
        here = [image for image in images if self._stored(image)]
        gone = len(images) - len(here)
        reading.leave_out(
            LeftOutReason.NOT_STORED,
            gone,
            f"{counted(gone, 'reviewed image', 'is', 'are')} not stored any more and left out.",
        )
        return here

    def _stored(self, image: LabelledImage) -> bool:
        return self._originals.has(image.stored) and all(one.path.is_file() for one in image.beside)

    def _volumes(self, manifest: PluginManifest) -> list[LabelledImage]:
        """Return each series of which slices were signed as one volume, with all that was said of it."""
        with self._database.read() as connection:
            examples = labelled_examples(connection, [condition.code for condition in manifest.conditions])
        volumes: dict[tuple[str, ...], LabelledImage] = {}
        for example in examples:
            series = self._series_of(example.study_id, example.version)
            slices = series.get(example.sha256, (example.sha256,))
            known = volumes.get(slices)
            first, *others = slices
            volumes[slices] = LabelledImage(
                path=self._originals.path(first),
                name=f"{example.study_id} {first[:12]}",
                patient_id="",
                labels={**(known.labels if known else {}), **example.labels},
                patient_key=example.patient_key,
                review_id=example.review_id,
                stored=first,
                beside=tuple(FileBeside("slice", self._originals.path(one), stored=one) for one in others),
            )
        return list(volumes.values())

    def _series_of(self, study_id: str, version: int) -> dict[str, tuple[str, ...]]:
        """Return, for each instance of a closed version, the hashes of its series, in the order of these hashes."""
        known = self._series.get((study_id, version))
        if known is None:
            if len(self._series) >= _REMEMBERED:
                self._series.clear()
            by_uid: dict[str, list[str]] = defaultdict(list)
            with self._database.read() as connection:
                instances = studies.instances_of(connection, study_id, version)
            for instance in instances:
                by_uid[instance.header.series_instance_uid].append(instance.sha256)
            whole = [tuple(sorted(set(hashes))) for hashes in by_uid.values()]
            known = {sha256: hashes for hashes in whole for sha256 in hashes}
            self._series[study_id, version] = known
        return known

    def _labels(self, manifest: PluginManifest) -> list[LabelledImage]:
        with self._database.read() as connection:
            found = labelled_examples(connection, [condition.code for condition in manifest.conditions])
        return [
            LabelledImage(
                path=self._originals.path(example.sha256),
                name=f"{example.study_id} {example.sha256[:12]}",
                patient_id="",
                labels=example.labels,
                patient_key=example.patient_key,
                review_id=example.review_id,
                stored=example.sha256,
            )
            for example in found
        ]

    def _pairs(self, category: str, reading: Reading) -> list[LabelledImage]:
        with self._database.read() as connection:
            signed = answered_reviews(connection)
        left: Counter[LeftOutReason] = Counter()
        images: list[LabelledImage] = []
        for study in signed:
            answers, changed = self._answers_of(study)
            here = [answer for answer in answers if answer.category == category]
            left[LeftOutReason.NOBODYS_WORDS] += changed if here else 0
            left[LeftOutReason.FRAME] += sum(1 for answer in here if answer.frame)
            images += self._images(study, [answer for answer in here if not answer.frame])
        for reason, count in left.items():
            note = f"{counted(count, 'answer', 'was', 'were')} left out of reviews: they {_WHY[reason]}."
            reading.leave_out(reason, count, note, "pair")
        return images

    def _answers_of(self, study: SignedStudy) -> tuple[tuple[SignedAnswer, ...], int]:
        review = study.review
        known = self._answers.get(review.review_id)
        if known is None:
            with self._database.read() as connection:
                analysed = jobs.analyses_of(connection, review.study_id, review.version)
                earlier = reviews_of_version(connection, review.study_id, review.version)
            before = written(one.document for one in earlier)
            answers, changed = signed_answers(review.document, [analysis for _, analysis in analysed], before)
            known = self._answers[review.review_id] = (tuple(answers), changed)
        return known

    def _images(self, study: SignedStudy, answers: Sequence[SignedAnswer]) -> list[LabelledImage]:
        pairs: dict[str, dict[str, QuestionAnswer]] = {}
        for answer in answers:
            asked = pairs.setdefault(answer.instance_sha256, {})
            asked[same_question(answer.pair.question)] = answer.pair
        return [
            LabelledImage(
                path=self._originals.path(sha256),
                name=f"{study.review.study_id} {sha256[:12]}",
                patient_id="",
                labels={},
                patient_key=study.patient_key,
                pairs=tuple(asked.values()),
                review_id=study.review.review_id,
                stored=sha256,
                identity=study.identity,
            )
            for sha256, asked in pairs.items()
        ]
