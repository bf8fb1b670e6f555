"""LoRA adapters over one base: checked before they are loaded, switched in milliseconds, the least used let go.

One adapter answers at a time. PEFT can also run a batch whose rows have different adapters (``adapter_names``), and
it is not used: what a row answers would then depend on which rows are beside it. In floating point that is a matter of
last digits; with an int8 base it is more, since the outliers that LLM.int8 keeps in floating point are chosen over the
whole batch (on a tiny base the logits moved by 0.2 where they spread by 1.7). What one category says must not change
with what another is asked, or with which others there are.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError
from safetensors.torch import load_file

from clinic_ai.contract import LoadedModel
from clinic_ai.domain import ModelRef
from clinic_ai.errors import ModelError
from clinic_ai_ultrasound.loading import Base
from clinic_ai_ultrasound.prompts import PROMPT_VERSION

RESIDENT = 16
"""Adapters in memory at most: every category of the document, those a clinic adds, and replaced ones that a job still
pins. One of rank 8 over OPT-2.7B takes 10 MiB."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_BASE_ALONE = ""
_PREFIX = "base_model.model."
_LANGUAGE = "language_model."
_REMEDY = "Train the category again with `clinic-ai train run ultrasound DIR`, or import an adapter of this base."
_PATTERN = re.compile(r"(?:\w|\\?\.|\.\*)*(?:\((?:\w|\|)*\))?")
_MOST_STARS = 3
"""Target modules may be a pattern, as long as it is a plain one: with groups that repeat, or many stars, whoever made
the adapter could halt the engine, which matches it with the name of every module."""
_FREE = {
    # What an adapter may choose of its config, or what says only where it comes from.
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "peft_version",
    "r",
    "revision",
    "target_modules",
    "task_type",
}


class Adapters:
    """The adapters of one base.

    ``loads`` counts how often the files of one were read; a switch between resident ones reads none.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._shapes = {
            name: (module.in_features, module.out_features)
            for name, module in base.model.named_modules()
            if isinstance(module, torch.nn.Linear)  # those of bitsandbytes are such, too
        }
        self._peft: Any = None  # a PeftModel once there is an adapter
        self._known: dict[tuple[str, str], LoadedModel] = {}
        self._resident: OrderedDict[str, None] = OrderedDict()
        self._in_use: str | None = _BASE_ALONE  # None: not known
        self.loads = 0

    def add(self, adapter: LoadedModel) -> None:
        """Take an adapter in, and load it unless it is here already.

        Raise ModelError if it is of another base, quantisation or prompt, no LoRA on the language model's linear
        layers, or if its weights do not fit or are not all finite.
        """
        self._known[adapter.ref.slot, adapter.ref.digest] = adapter
        try:
            self._hold(adapter)
        except ModelError:
            del self._known[adapter.ref.slot, adapter.ref.digest]
            raise

    def get(self, ref: ModelRef) -> LoadedModel:
        """Return the adapter that ``ref`` pins. Raise ModelError if it was never added."""
        found = self._known.get((ref.slot, ref.digest))
        if found is None:
            raise ModelError(f"The job pins the adapter {ref.label()}, which is not loaded.")
        return found

    def use(self, ref: ModelRef | None) -> None:
        """Let the adapter that ``ref`` pins answer, or the base alone. Raise ModelError if it was never added."""
        name = self._hold(self.get(ref)) if ref is not None else _BASE_ALONE
        if name == self._in_use:
            return
        if name != _BASE_ALONE:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name, inference_mode=True)
        elif self._peft is not None:
            self._peft.base_model.disable_adapter_layers()
        self._in_use = name

    @property
    def resident(self) -> tuple[str, ...]:
        """The names of the adapters in memory, the one that was used last at the end."""
        return tuple(self._resident)

    def _hold(self, adapter: LoadedModel) -> str:
        """Return the name of an adapter in memory; load it first if it is not, and let the longest unused one go."""
        name = f"{adapter.ref.slot}-{adapter.ref.digest[:16]}"
        if name not in self._resident:
            _Checked(adapter, self._base, self._shapes).check()
            self._load(adapter.directory, name)
        self._resident[name] = None
        self._resident.move_to_end(name)
        while len(self._resident) > RESIDENT:
            oldest, _ = self._resident.popitem(last=False)
            self._peft.delete_adapter(oldest)
            self._in_use = None  # PEFT turns to another one if it was this
        return name

    def _load(self, directory: str, name: str) -> None:
        if self._peft is None:
            self._peft = PeftModel.from_pretrained(
                self._base.model, directory, adapter_name=name, is_trainable=False, local_files_only=True
            )
        else:
            self._peft.load_adapter(directory, name, is_trainable=False, local_files_only=True)
        self._peft.eval()
        # PEFT puts the first one in use by that.
        self._in_use = None
        self.loads += 1


class _Checked:
    """An adapter against the base it is to be put over; names it in every error."""

    def __init__(self, adapter: LoadedModel, base: Base, shapes: dict[str, tuple[int, int]]) -> None:
        self._manifest = adapter.manifest
        self._label = adapter.ref.label()
        self._slot = adapter.ref.slot
        self._directory = Path(adapter.directory)
        self._base = base
        self._shapes = shapes

    def check(self) -> None:
        """Raise ModelError if PEFT would not load it, or would load it and answer wrongly."""
        self._check_manifest()
        config = self._config()
        targets = [name for name in self._shapes if check_target_module_exists(config, name)]
        if not targets:
            self._refuse("its target modules are none of this base")
        beyond = [name for name in targets if not name.startswith(_LANGUAGE) or name.endswith("lm_head")]
        if beyond:
            self._refuse(f"it changes {beyond[0]}; only the linear layers of the language model may be adapted")
        self._check_weights(targets, config.r)

    def _check_manifest(self) -> None:
        manifest, base = self._manifest, self._base
        if manifest.plugin != "ultrasound" or manifest.format != "safetensors":
            self._refuse("it is no safetensors model of the ultrasound plugin")
        if manifest.base_digest != base.ref.digest:
            theirs = (manifest.base_digest or "none")[:12]
            self._refuse(f"it was trained on another base ({theirs}) than the one in use ({base.ref.digest[:12]})")
        if manifest.quantisation != base.quantisation:
            theirs = manifest.quantisation
            self._refuse(f"it was trained on a base with quantisation {theirs!r}; this one has {base.quantisation!r}")
        if manifest.parameters.get("category") != self._slot:
            self._refuse(f"its category is not its slot, {self._slot!r}")
        if manifest.parameters.get("prompt_version") != PROMPT_VERSION:
            self._refuse("it was trained with another wording of the prompt")
        for file in manifest.files:
            if not file.name.endswith((".safetensors", ".json", ".txt", ".md")):
                self._refuse(f"its file {file.name} is neither safetensors nor text")
        names = {file.name for file in manifest.files}
        for name in (WEIGHTS, CONFIG):
            if name not in names or not (self._directory / name).is_file():
                self._refuse(f"its file {name} is missing")

    def _config(self) -> LoraConfig:
        try:
            config = LoraConfig.from_pretrained(str(self._directory), local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._refuse(f"its {CONFIG} cannot be read", error)
        if not isinstance(config, LoraConfig) or not config.target_modules:
            self._refuse("it is no LoRA adapter with target modules")
        if isinstance(targets := config.target_modules, str) and not _is_plain(targets):
            self._refuse("its target modules are a pattern that may take forever to match; they can be a list of names")
        usual, its = LoraConfig().to_dict(), config.to_dict()
        odd = sorted(key for key in its if key not in _FREE and (its[key] or usual.get(key)) != usual.get(key))
        if odd:
            self._refuse(f"it is more than a plain LoRA ({', '.join(odd)})")
        if not (isinstance(config.r, int) and config.r > 0 and _is_finite(config.lora_alpha)):
            self._refuse("its rank or alpha is no positive number")
        return config

    def _check_weights(self, targets: list[str], rank: int) -> None:
        try:
            tensors = load_file(self._directory / WEIGHTS)
        except (OSError, SafetensorError, ValueError) as error:
            self._refuse(f"its {WEIGHTS} cannot be read", error)
        expected: dict[str, tuple[int, int]] = {}
        for name in targets:
            columns, rows = self._shapes[name]
            expected[f"{_PREFIX}{name}.lora_A.weight"] = (rank, columns)
            expected[f"{_PREFIX}{name}.lora_B.weight"] = (rows, rank)
        strange = sorted(tensors.keys() ^ expected.keys())
        if strange:
            self._refuse(f"its weights do not fit its config and this base, first at {strange[0]}")
        for key, tensor in tensors.items():
            if tuple(tensor.shape) != expected[key]:
                found, wanted = _shape(tensor.shape), _shape(expected[key])
                self._refuse(f"its weights {key} are {found} where this base needs {wanted}")
            if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
                self._refuse(f"its weights {key} are not all finite floating-point numbers")

    def _refuse(self, why: str, cause: Exception | None = None) -> NoReturn:
        raise ModelError(f"The adapter {self._label} cannot be used: {why}.", remedy=_REMEDY) from cause


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def _is_plain(pattern: str) -> bool:
    return _PATTERN.fullmatch(pattern) is not None and pattern.count("*") <= _MOST_STARS


def _shape(sizes: Any) -> str:
    return " x ".join(map(str, sizes))
