"""Models: imported with every hash checked, made active in one transaction, and rolled back the same way.

A model lies in ``models/<plugin>/<name>/<version>/``: ``model.toml`` and the files it lists, never changed
after the import. The SHA-256 of ``model.toml`` is the model's digest; jobs pin it.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from clinic_ai.confinement import Confinement
from clinic_ai.contract import Device, EngineLoad, LoadedModel, ModelManifest, PluginManifest, Ready, memory_needed
from clinic_ai.domain import ModelRef, ModelState
from clinic_ai.errors import ChildError, ChildRefused, ClinicError, Conflict, ModelError
from clinic_ai.home import Home
from clinic_ai.processes import ChildSpec, Crew, computing_on
from clinic_ai.store import alerts, gates
from clinic_ai.store import models as store
from clinic_ai.store.database import Database
from clinic_ai.store.models import ModelView
from clinic_ai.store.objects import fsync_directory, hash_descriptor
from clinic_ai.training.formats import check_file
from clinic_ai.training.model_files import (
    MANIFEST_NAME,
    check_model,
    copy_model,
    open_plain,
    package_directory,
    read_manifest,
)

TRIAL_TIMEOUT_S = 300.0

_STAGING = ".import-"
_MIB = 1 << 20
_AGAIN = "Import the model again with `clinic-ai model import DIR`, or go back with `clinic-ai model rollback`."

FirstState = Literal[ModelState.IMPORTED, ModelState.CANDIDATE]


class Registry:
    """The models of one home. Safe to call from several threads."""

    def __init__(self, home: Home, database: Database, manifests: Mapping[str, PluginManifest], crew: Crew) -> None:
        self._root = home.models
        self._database = database
        self._manifests = manifests
        self._crew = crew
        self._importing = threading.Lock()
        self._hashes: dict[tuple[str, int, int, int, int], str] = {}

    # ------------------------------------------------------------ import

    def install_reference_models(self, actor: str) -> list[ModelRef]:
        """Import the models that ship with the plugins; make each active whose slot has no active model, but no spare.

        A newer reference model is imported beside the one in use and promoted by a person only. Return the
        models that are new here. A damaged one raises an alert and hinders nobody else.
        """
        fresh = []
        for place in (
            p for plugin in self._manifests.values() for p in (*plugin.reference_models, *plugin.spare_models)
        ):
            try:
                fresh += self._install(place, actor)
            except ClinicError as error:
                with self._database.write() as connection:
                    sentence = f"The reference model {place} cannot be installed: {error.message}"
                    alerts.raise_alert(connection, "reference_model", place, sentence, error.remedy)
        return fresh

    def _install(self, place: str, actor: str) -> list[ModelRef]:
        directory = package_directory(place)
        digest, model = read_manifest(directory)
        found = self._find(model)
        fresh = []
        if found is None or found.digest != digest:
            # No trial load: these files came with the plugin, and the start of the daemon should not wait.
            fresh.append(self._import(directory, actor, ModelState.IMPORTED, trial=False))
        with self._database.read() as connection:
            active = store.active_models(connection, model.plugin)
        spare = place in self._manifests[model.plugin].spare_models
        # An adapter of a reference base that a clinic has replaced waits for a person, without an alert at every start.
        fits = model.base_digest in {None, *(m.digest for m in active)}
        if fits and not spare and model.slot not in {m.slot for m in active}:
            self.promote(model.plugin, model.name, model.version, actor)
        return fresh

    def import_directory(self, path: Path, actor: str) -> ModelRef:
        """Check and copy a model directory into the registry; nothing is active by that.

        Importing the same model again restores its files. Raise ModelError if the directory, a file or the
        manifest is not acceptable, Conflict if another model has this name and version.
        """
        return self._import(path, actor, ModelState.IMPORTED, trial=True)

    def import_candidate(self, path: Path, actor: str, then: store.Then | None = None) -> ModelRef:
        """Import what a trainer made, as CANDIDATE; ``then`` joins the transaction that enters it.

        Raise ModelError as ``import_directory`` does, and if it claims to be fit for clinical use: that only a
        person can say.
        """
        _, manifest = read_manifest(path)
        if manifest.clinical_use or manifest.reference:
            raise ModelError(
                f"The trained model {title(manifest)} calls itself a reference model or fit for clinical use.",
                remedy="The plugin's trainer must set clinical_use and reference to false.",
            )
        return self._import(path, actor, ModelState.CANDIDATE, trial=True, then=then)

    def _import(
        self, path: Path, actor: str, state: FirstState, *, trial: bool, then: store.Then | None = None
    ) -> ModelRef:
        with self._importing:
            self._sweep()
            digest, manifest = read_manifest(path)
            self._check_manifest(manifest)
            found = self._find(manifest)
            if found is not None and found.digest != digest:
                raise Conflict(
                    f"Another model is registered as {title(manifest)} already; its digest begins "
                    f"{found.digest[:12]}, the new one's {digest[:12]}.",
                    remedy="Give the new model a version of its own in model.toml.",
                )
            ref = _ref(manifest, digest)
            if found is None or self._problems(found):
                self._place(path, manifest, digest, trial=trial)
            with self._database.write() as connection:
                if found is None:
                    place = str(self._directory(manifest).relative_to(self._root))
                    store.add_model(connection, manifest, digest=digest, directory=place, state=state, actor=actor)
                if then is not None:
                    then(connection, ref)
            return ref

    def _place(self, path: Path, manifest: ModelManifest, digest: str, *, trial: bool) -> None:
        """Copy the files, check the copy, and put it where it belongs."""
        self._check_space(manifest)
        staging = self._root / f"{_STAGING}{secrets.token_hex(8)}"
        try:
            copy_model(path, staging, manifest, digest)
            names = {file.name for file in manifest.files}
            for name in sorted(names):
                check_file(staging / name, names)
            if trial:
                self._try(manifest, digest, staging)
            self._put(staging, self._directory(manifest))
        finally:
            _remove(staging)

    def _check_manifest(self, manifest: ModelManifest) -> None:
        plugin = self._manifests.get(manifest.plugin)
        if plugin is None:
            raise ModelError(
                f"The model {title(manifest)} is for the plugin {manifest.plugin}, which is not installed.",
                remedy="Install the plugin first; `clinic-ai plugin list` shows the installed ones.",
            )
        if manifest.format not in plugin.model_formats:
            raise ModelError(
                f"The model {title(manifest)} is {manifest.format}; {manifest.plugin} takes "
                f"{' and '.join(plugin.model_formats)}.",
                remedy="Convert the model to a format the plugin takes.",
            )
        base = self._base(manifest)
        if base is not None and base.slot == manifest.slot:
            raise ModelError(
                f"The adapter {title(manifest)} has the slot of its base, {manifest.slot}.",
                remedy="Give the adapter a slot of its own in model.toml; it is used beside its base.",
            )
        if base is not None and base.manifest.quantisation != manifest.quantisation:
            raise ModelError(
                f"The adapter {title(manifest)} was trained on a base with quantisation {manifest.quantisation!r}; "
                f"its base here has {base.manifest.quantisation!r}.",
                remedy="Train it again on the base as it is served.",
            )
        if not _sensible(manifest.parameters.get("memory_mb", 1)):
            raise ModelError(
                f"The memory_mb of the model {title(manifest)} is not a number of MiB.",
                remedy="Correct the parameter memory_mb in model.toml, or leave it out.",
            )

    def _base(self, manifest: ModelManifest) -> ModelView | None:
        """Return the base of an adapter, None for a whole model. Raise ModelError if the base is not here."""
        if manifest.base_digest is None:
            return None
        with self._database.read() as connection:
            for model in store.list_models(connection):
                if model.plugin == manifest.plugin and model.digest == manifest.base_digest:
                    return model
        raise ModelError(
            f"The base of the adapter {title(manifest)} (digest {manifest.base_digest[:12]}) is not in the registry.",
            remedy="Import the base model first; an adapter works on exactly the base it was trained on.",
        )

    def _check_space(self, manifest: ModelManifest) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        need, free = sum(file.size_bytes for file in manifest.files), shutil.disk_usage(self._root).free
        if need > free:
            raise ModelError(
                f"The model {title(manifest)} needs {need >> 20} MiB and {self._root} has {free >> 20} MiB free.",
                remedy="Free space on that disk, then import again.",
            )

    def _try(self, manifest: ModelManifest, digest: str, directory: Path) -> None:
        """Load the model once in an engine of its own, which is thrown away afterwards."""
        plugin = self._manifests[manifest.plugin]
        model = LoadedModel(ref=_ref(manifest, digest), directory=str(directory.absolute()), manifest=manifest)
        base = self._base(manifest)
        models = (model,) if base is None else (self.loaded(base.ref), model)
        need_mb = memory_needed(plugin, (m.manifest for m in models))
        load = EngineLoad(engine=plugin.engine, models=models, device=Device(memory_mb=need_mb))
        limits = Confinement(data=(2 * need_mb + 512) * _MIB, file_size=_MIB)
        child = self._crew.start(
            ChildSpec(kind="engine", name=f"{plugin.name} trial", confinement=limits, environment=computing_on(1))
        )
        try:
            child.call("load", load, Ready, timeout_s=TRIAL_TIMEOUT_S)
        except ChildRefused as error:
            raise ModelError(
                f"The engine of {plugin.name} refuses the model {title(manifest)}: {error.message}",
                remedy=error.remedy or "Export the model again for this plugin.",
            ) from error
        except ChildError as error:
            raise ModelError(
                f"The engine of {plugin.name} cannot load the model {title(manifest)}: {error.message}",
                remedy="The files are not what this plugin can use, or need more memory than it declares.",
            ) from error
        finally:
            child.kill()

    def _put(self, staging: Path, target: Path) -> None:
        """Rename the finished copy into place; what lies there unregistered or damaged makes room."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rename(self._root / f"{_STAGING}{secrets.token_hex(8)}")
        staging.rename(target)
        for directory in (target.parent, target.parent.parent, self._root):
            fsync_directory(directory)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what an import left that did not come to its end."""
        for leftover in self._root.glob(f"{_STAGING}*"):
            _remove(leftover)

    # ------------------------------------------------------------ promote and roll back

    def promote(
        self, plugin: str, name: str, version: str, actor: str, permit: store.Permit = gates.approved
    ) -> ModelRef:
        """Make a model the active one of its slot, in one transaction, after checking every hash.

        ``permit`` says of a candidate, within the transaction, on whose approval it becomes active; without another
        one that is the approval of its newest report. Raise NotFound, ModelError if its files are damaged, Conflict if
        it is active already, was rejected, is a candidate that may not be promoted, or an adapter whose base is not
        active.
        """
        with self._database.read() as connection:
            model = store.get_model(connection, plugin, name, version)
        self._require_intact(model)
        with self._database.write() as connection:
            model = store.get_model(connection, plugin, name, version)
            if model.state is ModelState.ACTIVE:
                raise Conflict(f"The model {plugin}/{name}/{version} is active already.", remedy="Nothing is needed.")
            digests = {m.digest for m in store.active_models(connection, plugin)}
            if model.manifest.base_digest not in digests | {None}:
                raise Conflict(
                    f"{plugin}/{name}/{version} is an adapter and its base is not the active model.",
                    remedy="Promote its base first; `clinic-ai model list` shows the digests.",
                )
            approval = permit(connection, model) if model.state is ModelState.CANDIDATE else None
            store.activate(connection, model, actor=actor, approval_id=approval)
        return model.ref

    def rollback(self, plugin: str, slot: str, actor: str, *, retires: str | None = None) -> ModelRef:
        """Take the newest promotion of a slot back; once more, the one before it. Return what is in use then.

        Behind the first adapter of a slot comes its base, without an adapter. Raise Conflict if no model was
        active before, or if another model is in use than ``retires`` (name and version), ModelError if the files of
        that one are damaged.
        """
        with self._database.read() as connection:
            expected = store.previous(connection, plugin, slot)
        if expected is None:
            raise Conflict(
                f"No model of {plugin} was active in the slot {slot} before the present one.",
                remedy="Promote the model you want with `clinic-ai model promote`.",
            )
        self._require_intact(expected)
        with self._database.write() as connection:
            target = store.previous(connection, plugin, slot)
            if target is None or target.ref != expected.ref:
                raise _changed(plugin, slot)
            in_use = next((m for m in store.active_models(connection, plugin) if m.slot == slot), None)
            if retires is not None and (in_use is None or f"{in_use.name} {in_use.version}" != retires):
                raise _changed(plugin, slot)
            store.roll_back(connection, plugin, slot, actor=actor)
        return target.ref

    # ------------------------------------------------------------ use

    def active(self, plugin: str) -> tuple[ModelRef, ...]:
        """Return the active models of a plugin, one per slot, by slot; none if it has none.

        An adapter rests while another base than its own is active.
        """
        with self._database.read() as connection:
            found = store.active_models(connection, plugin)
        digests = {model.digest for model in found} | {None}
        return tuple(model.ref for model in found if model.manifest.base_digest in digests)

    def with_candidate(self, candidate: LoadedModel) -> tuple[LoadedModel, ...]:
        """Return the active models as they would be with ``candidate`` in its slot, by slot; it comes with its base.

        Raise ModelError if the files of one are damaged.
        """
        slot, digest = candidate.manifest.slot, candidate.manifest.base_digest
        models = {ref.slot: self.loaded(ref) for ref in self.active(candidate.ref.plugin)} | {slot: candidate}
        bases = {model.ref.digest for model in models.values()} | {None}
        if digest is not None and digest not in bases:
            known = {model.digest: model.ref for model in self.list_models()}
            models[known[digest].slot] = self.loaded(known[digest])
            bases.add(digest)
        return tuple(models[key] for key in sorted(models) if models[key].manifest.base_digest in bases)

    def spare(self, plugin: str) -> tuple[ModelRef, ...]:
        """Return the reference models of a plugin that are not in use, newest first; training may start from them."""
        with self._database.read() as connection:
            found = [m for m in store.list_models(connection) if m.plugin == plugin and m.reference]
        waiting = [m for m in found if m.state is ModelState.IMPORTED]
        return tuple(m.ref for m in sorted(waiting, key=lambda m: m.imported_at, reverse=True))

    def named(self, plugin: str, name: str, version: str) -> ModelRef:
        """Return a model by its name. Raise NotFound."""
        with self._database.read() as connection:
            return store.get_model(connection, plugin, name, version).ref

    def loaded(self, ref: ModelRef) -> LoadedModel:
        """Return the absolute directory of a model whose files all have their hash.

        A file that did not change since it was last hashed (size, times, inode) is not read again. Raise
        ModelError if a file is damaged or missing, NotFound if there is no such model.
        """
        with self._database.read() as connection:
            model = store.get_model(connection, ref.plugin, ref.name, ref.version)
        if model.digest != ref.digest:
            raise ModelError(f"The model {ref.label()} was replaced by another of its name.", remedy=_AGAIN)
        self._require_intact(model)
        return LoadedModel(ref=ref, directory=str((self._root / model.directory).absolute()), manifest=model.manifest)

    @staticmethod
    def outside(path: Path) -> LoadedModel:
        """Return a model that lies elsewhere, all of whose files are as its manifest says. Raise ModelError."""
        digest, manifest = read_manifest(path)
        check_model(path, manifest)
        return LoadedModel(ref=_ref(manifest, digest), directory=str(path.absolute()), manifest=manifest)

    def verify(self, plugin: str, name: str, version: str) -> list[str]:
        """Read every file of a model again and return what is wrong, nothing if all is well. Raise NotFound."""
        with self._database.read() as connection:
            model = store.get_model(connection, plugin, name, version)
        self._hashes.clear()
        return self._problems(model)

    def list_models(self) -> list[ModelView]:
        """Return all models by plugin and slot."""
        with self._database.read() as connection:
            return store.list_models(connection)

    def _require_intact(self, model: ModelView) -> None:
        problems = self._problems(model)
        if problems:
            raise ModelError(
                f"The model {model.ref.label()} is damaged: {problems[0]}"
                + (f" ({len(problems) - 1} more)" if len(problems) > 1 else ""),
                remedy=_AGAIN,
            )

    def _problems(self, model: ModelView) -> list[str]:
        directory = self._root / model.directory
        expected = {MANIFEST_NAME: model.digest} | {file.name: file.sha256 for file in model.manifest.files}
        problems = []
        for name, sha256 in expected.items():
            try:
                if self._hash(directory / name) != sha256:
                    problems.append(f"The file {name} does not have the hash it was imported with.")
            except OSError as error:
                problems.append(f"The file {name} cannot be read: {error.strerror}.")
        return problems

    def _hash(self, path: Path) -> str:
        descriptor = open_plain(path)
        try:
            status = os.fstat(descriptor)
            key = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if key not in self._hashes:
                self._hashes[key] = hash_descriptor(descriptor)[0]
            return self._hashes[key]
        finally:
            os.close(descriptor)

    def _find(self, manifest: ModelManifest) -> ModelView | None:
        with self._database.read() as connection:
            return store.find_model(connection, manifest.plugin, manifest.name, manifest.version)

    def _directory(self, manifest: ModelManifest) -> Path:
        return self._root / manifest.plugin / manifest.name / manifest.version


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def title(manifest: ModelManifest) -> str:
    """Return ``plugin/name/version``."""
    return f"{manifest.plugin}/{manifest.name}/{manifest.version}"


def _sensible(memory_mb: object) -> bool:
    return isinstance(memory_mb, int | float) and not isinstance(memory_mb, bool) and 0 < memory_mb < math.inf


def _ref(manifest: ModelManifest, digest: str) -> ModelRef:
    return ModelRef(
        plugin=manifest.plugin,
        slot=manifest.slot,
        name=manifest.name,
        version=manifest.version,
        digest=digest,
        reference=manifest.reference,
    )


def _changed(plugin: str, slot: str) -> Conflict:
    return Conflict(f"The active model of {plugin}/{slot} changed meanwhile.", remedy="Look, and try again.")
