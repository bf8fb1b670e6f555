"""The engine child: one plugin's model, warm. Methods ``load``, ``analyse``, ``ask``, ``close``."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING

from clinic_ai import confinement, wire

if TYPE_CHECKING:
    from clinic_ai.contract import AnalysisTask, Device, Engine, EngineLoad, LoadedModel, QuestionTask, Ready
    from clinic_ai.domain import Analysis, Answer


class Host:
    """Holds the engine of one plugin and the models it was given."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._path = ""
        self._bases: tuple[LoadedModel, ...] = ()
        self._device: Device | None = None

    def load(self, params: EngineLoad, _: wire.Call) -> Ready:
        """Load the models; bases that are loaded already stay, so that another adapter costs milliseconds.

        Raise ModelError if the engine cannot use one of them, PluginError if there is no such engine.
        """
        from clinic_ai.contract import Ready

        began = time.monotonic()
        adapters = [model for model in params.models if model.manifest.base_digest is not None]
        bases = tuple(model for model in params.models if model.manifest.base_digest is None)
        kept = self._engine is not None and (self._path, self._bases, self._device) == (
            params.engine,
            bases,
            params.device,
        )
        if not kept:
            self._replace(params, bases)
        engine = self._loaded()
        for adapter in adapters:
            engine.use(adapter)
        if kept and not adapters:
            engine.use(None)
        return Ready(seconds=time.monotonic() - began)

    def analyse(self, params: AnalysisTask, _: wire.Call) -> Analysis:
        """Judge a study."""
        return self._loaded().analyse(params)

    def ask(self, params: QuestionTask, _: wire.Call) -> Answer:
        """Answer a question."""
        return self._loaded().ask(params)

    def close(self, *_: object) -> Ready:
        """Let go of the models; another ``load`` may follow."""
        from clinic_ai.contract import Ready

        began = time.monotonic()
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        return Ready(seconds=time.monotonic() - began)

    def _replace(self, params: EngineLoad, bases: tuple[LoadedModel, ...]) -> None:
        self.close()
        engine = _make(params.engine)
        for base in bases:
            engine.load(base, params.device)
        if not bases:
            engine.load(None, params.device)
        self._engine, self._path, self._bases, self._device = engine, params.engine, bases, params.device

    def _loaded(self) -> Engine:
        if self._engine is None:
            from clinic_ai.errors import ModelError

            raise ModelError("The engine has no model; it must be loaded first.")
        return self._engine


def _make(path: str) -> Engine:
    """Return an engine of the class ``package.module:Class``. Raise PluginError if there is none."""
    from clinic_ai.errors import PluginError

    module, _, name = path.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise PluginError(
            f"The engine {path} cannot be started ({type(error).__name__}).", remedy="Install the plugin again."
        ) from error
    return engine


def main() -> None:
    """Tie our hands, then serve until the daemon closes the channel."""
    channel, _ = confinement.confine()
    from clinic_ai.contract import AnalysisTask, EngineLoad, QuestionTask
    from clinic_ai.domain import Word

    host = Host()
    wire.serve(
        channel,
        {
            "load": wire.Method(EngineLoad, host.load),
            "analyse": wire.Method(AnalysisTask, host.analyse),
            "ask": wire.Method(QuestionTask, host.ask),
            "close": wire.Method(Word, host.close),
        },
    )


if __name__ == "__main__":
    main()
