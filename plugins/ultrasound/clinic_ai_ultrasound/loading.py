"""Loads a base: a BLIP-2 or InstructBLIP of any size with a decoder-only language model, from a local directory.

Nothing is fetched, no code of the directory runs, and nothing but safetensors is read as weights. What would make
the model answer without looking at the image is refused here, because it would not be noticed later.
"""

from __future__ import annotations

import gc
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from tokenizers import AddedToken
from transformers import (
    AutoTokenizer,
    BitsAndBytesConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.utils import logging as transformers_logging

from clinic_ai.contract import Device, LoadedModel, ModelManifest
from clinic_ai.domain import ModelRef
from clinic_ai.errors import ModelError
from clinic_ai.heap import give_back
from clinic_ai.ml.precision import has_bfloat16
from clinic_ai_ultrasound.laying import Room

BASE_SLOT = "base"
IMAGE_TOKEN = "<image>"  # noqa: S105 - the word that stands for a part of the image
QFORMER_TOKENIZER = "qformer_tokenizer.json"
"""The second tokenizer of InstructBLIP. ``save_pretrained`` puts it in a folder of its own; our models are flat."""
QUANTISATIONS = ("none", "int8")
_REMEDY = "Export the base again with `save_pretrained`, then import it with `clinic-ai model import DIR`."

Model = Any
"""One of the classes of ``FAMILIES``; transformers types them in part only."""
Processor = Any
"""Blip2Processor or InstructBlipProcessor."""


@dataclass(frozen=True)
class Family:
    """The classes of one kind of model; ``model_type`` is what its config.json calls it."""

    model_type: str
    config: type[Any]
    model: type[Any]


FAMILIES = {
    "blip2": Family("blip-2", Blip2Config, Blip2ForConditionalGeneration),
    "instructblip": Family("instructblip", InstructBlipConfig, InstructBlipForConditionalGeneration),
}


@dataclass(frozen=True)
class Base:
    """A base in memory, its weights frozen and ready to answer.

    ``dtype`` is what it computes in. ``family`` is a key of ``FAMILIES``; the Q-Former of an InstructBLIP reads the
    question too, so its image features hold for one question only.
    """

    model: Model
    processor: Processor
    ref: ModelRef
    manifest: ModelManifest
    device: torch.device
    dtype: torch.dtype
    family: str

    @property
    def quantisation(self) -> str:
        """How its weights are held in memory: ``none`` or ``int8``."""
        return self.manifest.quantisation

    @property
    def image_tokens(self) -> int:
        """How many tokens of the prompt the image takes."""
        return int(self.model.config.num_query_tokens)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the language model, with the image token."""
        return self.processor.tokenizer


def load_base(model: LoadedModel, device: Device, room: Room | None = None) -> Base:
    """Load ``model`` on ``device``; with a ``room``, what does not fit into it is laid aside.

    Raise ModelError if it is no base of this plugin, if a file is missing or not what its manifest says, if the
    weights do not fit the config, if it could not see the image, or if a quantised one does not fit into its room.
    """
    _hush()
    checked = _Checked(model)
    family = FAMILIES[checked.family]
    place = _place(device)
    dtype = served_dtype(checked.dtype, place)
    torch.set_num_threads(max(1, device.threads))
    config = checked.config(family)
    processor = _processor(checked, config)
    where = {"": place} if room is None else _map(checked, family, config, place, room)
    loaded = _weights(checked, family, config, dtype, where, room)
    if checked.quantisation == "int8":
        _let_go_of_files(loaded)
    _require_sight(checked, loaded)
    loaded.requires_grad_(False)
    loaded.eval()
    return Base(loaded, processor, model.ref, model.manifest, place, dtype, checked.family)


def linear_layers(model: Model) -> dict[str, list[tuple[int, int]]]:
    """Return the linear layers of the language model that may get an adapter, by the last part of their names.

    Of each, (columns, rows) of its weights. The one that turns what it says into words is none of them.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for name, shape in adapted_layers(model).items():
        found.setdefault(name.rpartition(".")[2], []).append(shape)
    return found


def adapted_layers(model: Model, targets: Sequence[str] | None = None) -> dict[str, tuple[int, int]]:
    """Return (columns, rows) of those layers by their whole names; with ``targets``, of those whose names end so."""
    return {
        f"language_model.{name}": (module.in_features, module.out_features)
        for name, module in model.language_model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not name.endswith("lm_head")
        and (targets is None or name.rpartition(".")[2] in targets)
    }


def served_dtype(declared: str, place: torch.device) -> torch.dtype:
    """Return what a base computes in: as its manifest declares, but float32 on a processor without bfloat16.

    Half precision is never used: the Q-Former overflows in it.
    """
    if declared == "float32":
        return torch.float32
    return torch.bfloat16 if has_bfloat16(place) else torch.float32


def _hush() -> None:
    """Keep progress bars, and what libraries say anew for every layer, token and answer, out of the child's log.

    A child that prints a MiB is ended.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", r"Passing .* with `inputs_embeds` and without `input_ids`", UserWarning)
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def _place(device: Device) -> torch.device:
    if device.kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available() or device.index >= torch.cuda.device_count():
        raise ModelError(
            f"The GPU {device.index} is not there, or the installed torch cannot use it.",
            remedy="Install the CUDA build of torch, or let the engine run on the processor.",
        )
    return torch.device("cuda", device.index)


class _Checked:
    """A base whose manifest is what this plugin can use; names the model in every error."""

    def __init__(self, model: LoadedModel) -> None:
        manifest, values = model.manifest, model.manifest.parameters
        self.label, self.manifest = model.ref.label(), manifest
        self.directory = Path(model.directory)
        self.quantisation = manifest.quantisation
        self.family = str(values.get("family", ""))
        self.dtype = str(values.get("dtype", "float32"))
        if manifest.plugin != "ultrasound":
            self.refuse(f"it belongs to the plugin {manifest.plugin}")
        if model.ref.slot != BASE_SLOT or manifest.base_digest is not None:
            self.refuse(f"a base has the slot {BASE_SLOT!r} and no base of its own")
        if manifest.format != "safetensors":
            self.refuse(f"its format is {manifest.format}, not safetensors")
        if self.quantisation not in QUANTISATIONS:
            self.refuse(f"its quantisation is {self.quantisation!r}, not one of {', '.join(QUANTISATIONS)}")
        if self.family not in FAMILIES:
            self.refuse(f"its family is {self.family!r}, not one of {', '.join(FAMILIES)}")
        if self.dtype not in {"float32", "bfloat16"}:
            self.refuse(f"its dtype is {self.dtype!r}, not float32 or bfloat16")
        for file in manifest.files:
            if not (self.directory / file.name).is_file():
                self.refuse(f"its file {file.name} is missing")
        if (self.directory / "adapter_config.json").exists():
            self.refuse("there is an adapter among its files, which would be put over it unseen")

    def refuse(self, why: str, cause: Exception | None = None) -> NoReturn:
        """Raise ModelError with the model's name and the remedy."""
        raise ModelError(f"The base {self.label} cannot be used: {why}.", remedy=_REMEDY) from cause

    def config(self, family: Family) -> Any:
        """Return the config of the classes of ``family``. Raise ModelError if config.json is of another kind."""
        try:
            content = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
            kind = content.get("model_type")
            if kind != family.model_type:
                self.refuse(f"its config.json is of a {kind!r} model, not of {family.model_type!r}")
            config = family.config.from_dict(content)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            self.refuse("its config.json cannot be read", error)
        if not config.use_decoder_only_language_model:
            self.refuse(
                f"its language model is a {config.text_config.model_type}; only decoders such as OPT are served"
            )
        if getattr(config, "quantization_config", None):
            self.refuse("its weights are stored quantised; they are stored as float and quantised when loaded")
        if config.image_token_index is None:
            self.refuse("its config.json has no image_token_index, so it would answer without seeing the image")
        return config


def _processor(checked: _Checked, config: Any) -> Processor:
    """Return the processor made of the model's own files; the pictures are always prepared by Pillow.

    Where torchvision is installed transformers would take that, and prepare the pixels a little differently from
    one machine to the next.
    """
    directory = str(checked.directory)
    processor: Processor
    try:
        pictures = BlipImageProcessorPil.from_pretrained(directory, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        if checked.family == "blip2":
            processor = Blip2Processor(pictures, tokenizer, num_query_tokens=config.num_query_tokens)
        else:
            second = PreTrainedTokenizerFast(tokenizer_file=str(checked.directory / QFORMER_TOKENIZER))
            processor = InstructBlipProcessor(pictures, tokenizer, second, num_query_tokens=config.num_query_tokens)
    except Exception as error:  # noqa: BLE001 - tokenizers raise the bare Exception of a damaged file
        checked.refuse(f"its tokenizer or image processor cannot be read ({type(error).__name__})", error)
    # A tokenizer that was saved with the image token hands it out as str, which the processor cannot use.
    processor.image_token = AddedToken(IMAGE_TOKEN, normalized=False, special=True)
    tokenizer.add_tokens([processor.image_token], special_tokens=True)
    tokens = tokenizer(IMAGE_TOKEN * config.num_query_tokens, add_special_tokens=False)["input_ids"]
    if tokens != [config.image_token_index] * config.num_query_tokens:
        checked.refuse(
            f"its tokenizer does not turn {IMAGE_TOKEN} into the image_token_index of its config.json, so it would "
            "answer without seeing the image"
        )
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        checked.refuse("its tokenizer has no token for padding or for the end")
    return processor


def _map(checked: _Checked, family: Family, config: Any, place: torch.device, room: Room) -> dict[str, Any]:
    with torch.device("meta"):
        empty = family.model(config)
    empty.tie_weights()
    found = room.map_of(empty, checked.manifest, place)
    if checked.quantisation != "none" and set(found.values()) != {str(place)}:
        raise ModelError(
            f"The base {checked.label} does not fit into the memory of the GPU, and weights of a quantised base cannot "
            "be laid aside.",
            remedy='Train on the processor (training.device = "cpu" in clinic.toml), on a larger GPU, or on a smaller '
            "base.",
        )
    return found


def _weights(
    checked: _Checked, family: Family, config: Any, dtype: torch.dtype, where: dict[str, Any], room: Room | None
) -> Any:
    quantised = BitsAndBytesConfig(load_in_8bit=True) if checked.quantisation == "int8" else None
    try:
        loaded, report = family.model.from_pretrained(
            str(checked.directory),
            config=config,
            dtype=dtype,
            device_map=where,
            offload_folder=None if room is None else str(room.folder),
            quantization_config=quantised,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The base {checked.label} does not fit into the memory of the device.",
            remedy='Serve it with quantisation = "int8", or take a smaller base.',
        ) from error
    # OSError: a shard is missing; the others: a file is damaged, or tensors have other shapes than the config.
    except Exception as error:  # noqa: BLE001 - safetensors, accelerate and bitsandbytes each have errors of their own
        checked.refuse(f"its weights cannot be read or do not fit its config.json ({type(error).__name__})", error)
    for kind, what in (("missing_keys", "lack"), ("mismatched_keys", "do not fit"), ("unexpected_keys", "go beyond")):
        names = sorted(str(name) for name in report.get(kind) or () if not str(name).endswith("position_ids"))
        if names:
            checked.refuse(f"its weights {what} its config.json, first at {names[0]} ({len(names)} tensors)")
    return loaded


def _let_go_of_files(model: Any) -> None:
    """Copy what was not quantised, and give back what the quantisation used.

    That lies in the mapped files still: for a layer norm of a few kB a shard of gigabytes stays mapped, and counts as
    memory of the child (BLIP-2 OPT-2.7B: 12.0 GiB of data where 5.4 will do, 3.7 of them weights).
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype is not torch.int8:
            tensor.data = tensor.data.clone()
    gc.collect()
    give_back()


def _require_sight(checked: _Checked, model: Any) -> None:
    """Raise ModelError if a weight is not a number, or if nothing of the image could reach the language model."""
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            checked.refuse(f"its weights {name} are not all finite numbers")
    # transformers begins with zeros: they are still there if nobody trained or loaded them, and all queries are one.
    if not model.query_tokens.any():
        checked.refuse("its query tokens are all zero, so it cannot see; it was never trained on images")
    words = model.get_input_embeddings().num_embeddings
    if model.config.image_token_index >= words:
        checked.refuse(f"its image_token_index is not one of the {words} words of its language model")
