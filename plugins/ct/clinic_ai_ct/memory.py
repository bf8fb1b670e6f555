"""What a configuration takes of memory, before anything is loaded: a rehearsal on tensors that hold nothing.

The network is run once on torch's fake tensors, which have shapes and no content, while every storage that comes and
goes is counted; weights, images and the language model are added by arithmetic. So the figures follow the network
when it changes, and every term can be shown. They hold for a process that gives large blocks back when they are freed:
see ``clinic_ai.heap.share_one_heap``; without it glibc keeps a tenth more.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from clinic_ai_ct.configurations import Configuration, LanguageConfig, NetworkConfig, Size
from clinic_ai_ct.language import lora_numbers, unloaded
from clinic_ai_ct.network import CTNetwork
from clinic_ai_ct.sliding import windows_of

INTERPRETER = 570 << 20
"""Memory of Python with torch, MONAI and transformers, before any model."""
CUDA_CONTEXT = 900 << 20
"""Memory of a GPU that CUDA, its kernels and what torch's allocator cannot use take."""
REPORT_TOKENS = 512
"""Tokens of prompt and report that a language model holds at once."""
_FLOAT = 4
_NF4_BITS = 4.127
"""Bits of a weight in four bits with doubly quantised scales: 4 + 8/64 + 32/(64·256); Dettmers et al. 2023."""


def _attention_operations(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations}
"""The kernel of processors, which torch's own counter does not know."""


@dataclass(frozen=True)
class Term:
    """One term of a sum, in bytes, and what it is."""

    what: str
    size: int


@dataclass(frozen=True)
class Need:
    """What is needed at once, term by term, in bytes."""

    terms: tuple[Term, ...]

    @property
    def total(self) -> int:
        """All of it."""
        return sum(term.size for term in self.terms)


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, for as long as anything holds them; ``peak`` is in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                # What was given, such as weights and the image: a view of it takes nothing more.
                self._note(tensor.untyped_storage(), given=True)
        made = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage, *, given: bool = False) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = 0 if given else storage.nbytes()
        self.now += self._known[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def judging(configuration: Configuration) -> Need:
    """Return what one study takes: the network, and where there is one, the language model that writes after it."""
    network, language = configuration.network, configuration.language
    terms = [
        _beside(configuration),
        Term("weights of the network", _FLOAT * _numbers(network)),
        Term("image, masks and what blends them", _image(network) + _blending(network)),
        Term("what the network computes on the way", rehearsed(network, judge_once)),
    ]
    if language is not None:
        model = unloaded(language)
        on_gpu = configuration.device == "cuda"
        terms += [
            Term(f"weights of {language.published}", _language_weights(model, language, on_gpu)),
            Term("its memory of what it wrote", _kept_by_language(language, network.projector.queries, on_gpu)),
        ]
    return Need(tuple(terms))


def learning(configuration: Configuration) -> Need:
    """Return what learning all tasks at once takes, one study at a time, one tile of it drawn by the U-Net.

    Of a language model only adapters learn; Adam keeps two moments of every number that does.
    """
    network, language = configuration.network, configuration.language
    numbers, trained = _numbers(network), _numbers(network, trained=True)
    terms = [
        _beside(configuration),
        Term("weights of the network", _FLOAT * numbers),
        Term("gradients", _FLOAT * trained),
        Term("moments of the optimiser", 2 * _FLOAT * trained),
        Term("image and masks", _image(network)),
        Term("what the network keeps for the way back", max(0, rehearsed(network, learn_once) - _FLOAT * trained)),
    ]
    if language is not None:
        model, on_gpu = unloaded(language), configuration.device == "cuda"
        adapters = lora_numbers(model, language.rank, language.targets)
        terms += [
            Term(f"weights of {language.published}", _language_weights(model, language, on_gpu)),
            Term("adapters, their gradients and moments", 4 * _FLOAT * adapters),
            Term("what the language model keeps for the way back", _kept_for_learning(language, network, on_gpu)),
        ]
    return Need(tuple(terms))


def operations(config: NetworkConfig) -> int:
    """Return the floating-point operations of judging one study of the size of the encoder's volume."""
    tiles = windows_of(config.encoder.volume, tile_of(config), config.localiser.overlap)
    tiles *= 2 if config.localiser.mirrored else 1

    def counted(network: CTNetwork, image: Tensor, regions: Tensor) -> int:
        network.eval()
        with torch.no_grad():
            with FlopCounterMode(display=False, custom_mapping=ATTENTION) as looked:
                features = network.encoder(image, regions)
                refined = network.refine(features)
                network.classify(features)
            with FlopCounterMode(display=False, custom_mapping=ATTENTION) as drawn:
                network.segment(*_tile(config, refined, image))
        return int(looked.get_total_flops() + tiles * drawn.get_total_flops())

    return on_fakes(config, counted)


def rehearsed(config: NetworkConfig, act: Callable[[CTNetwork, Tensor, Tensor], object]) -> int:
    """Return the most bytes that ``act(network, image, regions)`` holds at once, beside what it is given."""

    def counted(network: CTNetwork, image: Tensor, regions: Tensor) -> int:
        with _Ledger() as ledger:
            kept = act(network, image, regions)
        del kept
        return int(ledger.peak)

    return on_fakes(config, counted)


def on_fakes(config: NetworkConfig, act: Callable[[CTNetwork, Tensor, Tensor], int]) -> int:
    """Return what ``act(network, image, regions)`` finds of tensors that have shapes and no content."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.zeros(1, config.encoder.channels, *config.encoder.volume)
        regions = torch.zeros(1, *config.encoder.volume, dtype=torch.uint8)
        return act(CTNetwork(config), image, regions)


def judge_once(network: CTNetwork, image: Tensor, regions: Tensor) -> object:
    """Do all tasks on one study, and one tile of the U-Net; return all that is kept."""
    network.eval()
    with torch.no_grad():
        features = network.encoder(image, regions)
        refined = network.refine(features)
        drawn = network.segment(*_tile(network.config, refined, image))
        return features, refined, drawn, network.classify(features), network.project(features)


def learn_once(network: CTNetwork, image: Tensor, regions: Tensor) -> object:
    """Do all tasks on one study and one tile of the U-Net, and go the way back."""
    network.train()
    features = network.encoder(image, regions)
    refined = network.refine(features)
    drawn = network.segment(*_tile(network.config, refined, image))
    loss = drawn.sigmoid().mean() + network.classify(features).mean() + network.project(features).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def _tile(config: NetworkConfig, refined: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    z, y, x = tile_of(config)
    a, b, c = (side // part for side, part in zip((z, y, x), config.encoder.patch, strict=True))
    return refined[:, :, :a, :b, :c], image[:, :, :z, :y, :x]


def tile_of(config: NetworkConfig) -> Size:
    """Return how many voxels the U-Net sees at once."""
    z, y, x = (min(a, b) for a, b in zip(config.localiser.tile, config.encoder.volume, strict=True))
    return z, y, x


def _beside(configuration: Configuration) -> Term:
    if configuration.device == "cuda":
        return Term("CUDA and its kernels", CUDA_CONTEXT)
    return Term("Python with its libraries", INTERPRETER)


def _numbers(config: NetworkConfig, *, trained: bool = False) -> int:
    with torch.device("meta"):
        network = CTNetwork(config)
    return sum(weights.numel() for weights in network.parameters() if weights.requires_grad or not trained)


def _image(config: NetworkConfig) -> int:
    """Channels as float32, and one number of a region for each voxel."""
    return math.prod(config.encoder.volume) * (_FLOAT * config.encoder.channels + 1)


def _blending(config: NetworkConfig) -> int:
    """Where the U-Net goes by tiles, what they are blended in: a sum for each finding, and one of the weights."""
    if tile_of(config) == config.encoder.volume:
        return 0
    return math.prod(config.encoder.volume) * _FLOAT * (len(config.localiser.findings) + 1)


def _language_weights(model: Any, language: LanguageConfig, on_gpu: bool) -> int:
    """Linear layers in four bits if that is wanted, except the one that makes words; the rest as it computes."""
    width = 2 if on_gpu else _FLOAT
    total = sum(int(weights.numel()) for weights in model.parameters())
    if language.quantisation == "none":
        return width * total
    quantised = sum(
        int(module.weight.numel())
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    )
    return int(quantised * _NF4_BITS / 8) + width * (total - quantised)


def _kept_by_language(language: LanguageConfig, queries: int, on_gpu: bool) -> int:
    """Keys and values of every token in every layer."""
    values = language.values
    kept = 2 * int(values["num_hidden_layers"]) * int(values["num_key_value_heads"]) * int(values["head_dim"])
    return (queries + REPORT_TOKENS) * kept * (2 if on_gpu else _FLOAT)


def _kept_for_learning(language: LanguageConfig, network: NetworkConfig, on_gpu: bool) -> int:
    """With checkpoints what goes into each layer, what one layer holds inside, and the scores of every word twice."""
    values, width = language.values, (2 if on_gpu else _FLOAT)
    tokens, hidden = network.projector.queries + REPORT_TOKENS, int(values["hidden_size"])
    inside = 12 * hidden + 4 * int(values["intermediate_size"])
    kept = tokens * width * (int(values["num_hidden_layers"]) * hidden + inside)
    return kept + 2 * tokens * _FLOAT * int(values["vocab_size"])
