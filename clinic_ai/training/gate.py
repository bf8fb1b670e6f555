"""Candidates are held against the model in use: on the frozen test part, by subgroup, and through the guard.

What comes of it is a report. It decides nothing by itself: ``approval`` says who may make a candidate active.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from clinic_ai.contract import Dataset, Device, Limits, LoadedModel, PluginManifest
from clinic_ai.domain import ModelRef, new_id
from clinic_ai.errors import ClinicError, DatasetError, ModelError
from clinic_ai.gating import Examined, ExamineRequest, GateReport, GateRules, JudgeTask
from clinic_ai.guard.client import Guard
from clinic_ai.home import Home
from clinic_ai.processes import ChildSpec, Crew
from clinic_ai.settings import Settings
from clinic_ai.store import datasets, gates, origins
from clinic_ai.store.database import Database
from clinic_ai.training.deciding import decide, fishing
from clinic_ai.training.promotion import Promotions
from clinic_ai.training.registry import Registry
from clinic_ai.training.spoken import Interrupted, Speakers, Watch, Words

FASTER_MAY_LOSE = 0.005
"""How much of the main figure a version of a model that was made for speed may lose, the clinic's rules or not."""
_UNWATCHED = Watch()


class Gate:
    """Examines candidates, one at a time; ``promotions`` makes those active that may be."""

    def __init__(
        self,
        home: Home,
        database: Database,
        registry: Registry,
        crew: Crew,
        guard: Guard,
        settings: Callable[[], Settings],
    ) -> None:
        self._database = database
        self._registry = registry
        self._crew = crew
        self._settings = settings
        self._words = Words(home.runs, crew, guard, settings)
        self.promotions = Promotions(database, registry, settings)

    def examine(
        self,
        manifest: PluginManifest,
        candidate: LoadedModel,
        dataset: Dataset,
        *,
        spec: ChildSpec,
        limits: Limits,
        device: Device,
        watch: Watch = _UNWATCHED,
    ) -> GateReport:
        """Hold a candidate, in the registry or not, against the model in use; children are started as ``spec``.

        An examination that cannot be carried out is a report that did not pass, and says why. Raise Interrupted if
        ``watch`` says so; it can begin anew at any time.
        """
        incumbent, base = None, None
        try:
            incumbent, base = self.incumbent(manifest, candidate), self.base_of(candidate)
            self.refuse_known(dataset, candidate, incumbent)
            tasks = [
                JudgeTask(
                    model=model,
                    base=base if model.manifest.base_digest is not None else None,
                    # The notes name files, and files are named after patients.
                    dataset=dataset.model_copy(update={"notes": ()}),
                    limits=limits,
                    device=device,
                    categories=manifest.categories,
                )
                for model in (candidate, incumbent)
                if model is not None
            ]
            examined = self._examined(manifest, tasks, spec, limits, watch)
            speakers = Speakers(self._beside(manifest, candidate, base), self._now(manifest, incumbent, base))
            heard = self._words.judged(manifest, dataset, speakers, examined.said, watch)
        except Interrupted:
            raise
        except ClinicError as error:
            watch.check()  # a child that was killed for it, or died of it
            why = f"It could not be examined: {error.message} {error.remedy}".strip()
            return self._report(candidate, incumbent, dataset, passed=False, reasons=(why,))
        decided = decide(examined.comparison, heard, self._rules(candidate))
        doubts = (*decided.doubts, *(self._fishing(candidate, incumbent) if decided.passed else ()))
        return self._report(candidate, incumbent, dataset, passed=decided.passed, reasons=decided.reasons).model_copy(
            update={
                "comparison": examined.comparison,
                "guard": heard,
                "doubts": doubts,
                "notes": (*decided.notes, *examined.notes),
            }
        )

    def incumbent(self, manifest: PluginManifest, candidate: LoadedModel) -> LoadedModel | None:
        """Return the model that does now what the candidate is for, None if none does.

        That is the active model of its slot; behind no adapter the base itself, where the clinic lets bases answer.
        """
        active = {ref.slot: ref for ref in self._registry.active(manifest.name)}
        found = active.get(candidate.manifest.slot)
        digest = candidate.manifest.base_digest
        if found is None and digest is not None and self._settings().questions.base_answers:
            found = next((ref for ref in active.values() if ref.digest == digest), None)
        return None if found is None else self._registry.loaded(found)

    def _fishing(self, candidate: LoadedModel, incumbent: LoadedModel | None) -> tuple[str, ...]:
        digest = "" if incumbent is None else incumbent.ref.digest
        with self._database.read() as connection:
            return fishing(gates.others_tried(connection, candidate.ref.plugin, digest, candidate.ref.digest))

    def base_of(self, candidate: LoadedModel) -> LoadedModel | None:
        """Return the base of an adapter, None for a whole model. Raise ModelError if it is not in the registry."""
        digest = candidate.manifest.base_digest
        if digest is None:
            return None
        known = {model.digest: model.ref for model in self._registry.list_models()}
        if digest not in known:
            raise ModelError(
                f"The base of the adapter {candidate.ref.label()} (digest {digest[:12]}) is not in the registry.",
                remedy="Import the base model first; an adapter works on exactly the base it was trained on.",
            )
        return self._registry.loaded(known[digest])

    def refuse_known(self, dataset: Dataset, candidate: LoadedModel, incumbent: LoadedModel | None) -> None:
        """Raise DatasetError if either model, or one it came of, was trained on a test image or patient of these."""
        test = [example for example in dataset.examples if example.split == "test"]
        patients, images = {e.patient_key for e in test}, {e.sha256 for e in test}
        models = self._registry.list_models()
        for model in (candidate, *([incumbent] if incumbent is not None else [])):
            with self._database.read() as connection:
                behind = origins.ancestors(connection, models, model.ref.digest, model.manifest)
                learned = [datasets.get_dataset(connection, origin.dataset_id) for origin in behind]
            for earlier in learned:
                train = [example for example in earlier.examples if example.split == "train"]
                shared = {e.patient_key for e in train} & patients or {e.sha256 for e in train} & images
                if shared:
                    raise DatasetError(
                        f"The model {model.ref.label()} was trained on {len(shared)} of the test patients or images of "
                        f"the dataset {dataset.dataset_id}, in the dataset {earlier.dataset_id}; figures on them would "
                        "be too good.",
                        remedy="Examine it on a dataset that was frozen here: its patients keep their part for life.",
                    )

    def _examined(
        self, manifest: PluginManifest, tasks: list[JudgeTask], spec: ChildSpec, limits: Limits, watch: Watch
    ) -> Examined:
        assert manifest.trainer is not None
        watch.check()
        request = ExamineRequest(
            trainer=manifest.trainer, candidate=tasks[0], incumbent=tasks[1] if len(tasks) > 1 else None
        )
        child = self._crew.start(spec)
        try:
            watch.begin(child)
            return child.call("examine", request, Examined, timeout_s=limits.max_seconds)
        finally:
            child.kill()

    def _beside(
        self, manifest: PluginManifest, candidate: LoadedModel, base: LoadedModel | None
    ) -> tuple[LoadedModel, ...]:
        """Return the models that would speak if the candidate were in use: itself, and those of the other slots."""
        if manifest.labels == "answers":
            return (candidate, base) if base is not None else (candidate,)
        return self._registry.with_candidate(candidate)

    def _now(
        self, manifest: PluginManifest, incumbent: LoadedModel | None, base: LoadedModel | None
    ) -> tuple[LoadedModel, ...]:
        """Return the models that speak now; none if nothing does what the candidate is for."""
        if incumbent is None:
            return ()
        if manifest.labels == "answers":
            return (incumbent, base) if base is not None and incumbent != base else (incumbent,)
        return tuple(self._registry.loaded(ref) for ref in self._registry.active(manifest.name))

    def _rules(self, candidate: LoadedModel) -> GateRules:
        rules = self._settings().training.gate
        if candidate.manifest.parameters.get("quantised_from"):  # it is there to be faster, not to be better
            return GateRules(
                improvement="not_worse",
                largest_loss=max(FASTER_MAY_LOSE, rules.largest_loss),
                subgroup_loss=rules.subgroup_loss,
            )
        return GateRules(
            improvement=rules.improvement, largest_loss=rules.largest_loss, subgroup_loss=rules.subgroup_loss
        )

    def _report(
        self,
        candidate: LoadedModel,
        incumbent: LoadedModel | None,
        dataset: Dataset,
        *,
        passed: bool,
        reasons: tuple[str, ...],
    ) -> GateReport:
        ref: ModelRef = candidate.ref
        everybody = {(example.split, example.patient_key) for example in dataset.examples}
        return GateReport(
            report_id=new_id("G"),
            plugin=ref.plugin,
            slot=ref.slot,
            name=ref.name,
            version=ref.version,
            digest=ref.digest,
            incumbent=incumbent.ref if incumbent is not None else None,
            dataset_id=dataset.dataset_id,
            dataset_digest=dataset.digest,
            patients=dict(Counter(split for split, _ in everybody)),
            rules=self._rules(candidate),
            passed=passed,
            reasons=reasons,
            at=time.time(),
        )
