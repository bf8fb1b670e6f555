"""The language model that writes reports, kept to what the evidence carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from clinic_ai.contract import Device, LoadedModel
from clinic_ai.domain import Finding, ModelRef, ReportSentence
from clinic_ai.errors import ModelError
from clinic_ai_ct.encoder import Features
from clinic_ai_ct.language import Language, load_language, write
from clinic_ai_ct.lesions import Lesion
from clinic_ai_ct.report import location_phrases
from clinic_ai_ct.served import Served
from clinic_ai_ct.supported import completed, supported

LANGUAGE_SLOT = "language"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of a network's directory where an adapter over the language model lies beside it: they learned together."""
LONGEST = 320
"""Tokens of a report that are waited for."""
_ASKED = "Write the findings and the impression of this CT of the chest.\n"


class Written(NamedTuple):
    """A whole report, and what is to be said of it."""

    sentences: tuple[ReportSentence, ...]
    remarks: tuple[str, ...]


def prompt_of(lesions: Sequence[Lesion]) -> str:
    """Return what the language model reads after the image: where masks were drawn, and what is wanted."""
    return "\n".join([*location_phrases(lesions), _ASKED])


@dataclass
class Writer:
    """A language model in memory; ``over`` is the network whose adapter it carries."""

    ref: ModelRef
    language: Language
    over: str = ""

    @classmethod
    def load(cls, model: LoadedModel, device: Device) -> Writer:
        """Load the language model of a model directory. Raise ModelError if it cannot be read or does not fit."""
        where = torch.device(f"cuda:{device.index}" if device.kind == "cuda" else "cpu")
        kind = model.manifest.quantisation
        if kind not in {"none", "nf4"}:
            raise ModelError(f"The language model {model.ref.label()} is quantised as {kind}; it may be none or nf4.")
        language = load_language(Path(model.directory), "nf4" if kind == "nf4" else "none", where)
        return cls(model.ref, language)

    def write(
        self,
        served: Served,
        features: Features,
        findings: Sequence[Finding],
        lesions: Sequence[Lesion],
        template: Sequence[ReportSentence],
    ) -> Written:
        """Return the report of the language model: what of it findings and lesions carry, completed by ``template``.

        Raise ModelError if the network does not speak to this language model.
        """
        self._carry(served)
        wanted = served.network.config.projector.language_width
        if wanted != self.language.width:
            raise ModelError(
                f"The network {served.ref.label()} writes for language models of width {wanted}; {self.ref.label()} "
                f"has {self.language.width}.",
                remedy="Promote the language model it was trained with, or retire the language model.",
            )
        with torch.inference_mode():
            image = served.network.project(features)
            (text,) = write(self.language, image, prompt_of(lesions), longest=LONGEST)
        said = supported(text, findings, lesions)
        remarks = ["The report was written by a language model and checked against findings and masks."]
        if said.removed:
            count = len(said.removed)
            remarks.append(
                f"{count} of its sentences {'was' if count == 1 else 'were'} left out, since nothing that was found or "
                "measured carries what it said."
            )
        if not said.sentences:
            remarks = ["What the language model wrote was not carried by findings and masks; the report is a template."]
        return Written(completed(said.sentences, template), tuple(remarks))

    def _carry(self, served: Served) -> None:
        """Put the adapter that came with the network over the language model, once, if one came."""
        if self.over == served.ref.digest:
            return
        config, weights = (served.directory / name for name in (ADAPTER, ADAPTER_WEIGHTS))
        if config.exists():
            try:
                weights.stat()  # without them peft would look for a pickle
                from peft import PeftModel

                model = PeftModel.from_pretrained(self.language.model, str(served.directory))
            except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
                raise ModelError(
                    f"The adapter of {served.ref.label()} does not fit the language model {self.ref.label()}.",
                    remedy="Promote the language model it was trained with, or retire the language model.",
                ) from error
            self.language = Language(model.eval(), self.language.tokenizer)
        self.over = served.ref.digest
