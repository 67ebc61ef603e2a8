"""One loaded model per folder, device and dtype, shared by everything in the process.

```
open_engine("pocket") -> engine.stream(messages, items, sampling) -> Piece, Piece, ...
open_senses("pocket") -> senses.embed(rows of items)              -> (N, D) unit vectors
```

An answer is a plain loop over the model's forward call. What belongs to one answer
(injection, key/value cache, random state) lives in that loop alone, so that threads
share the weights and nothing else. The loop ends where its consumer stops.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch

from ibllm_tools.checkpoints import POCKET, find_folder
from ibllm_tools.decoding import AnswerText, Sampler, Sampling
from ibllm_tools.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.media import Item
    from ibllm_tools.preprocess import PreprocessConfig

UNBOUNDED = 2**31

FinishReason = Literal["stop", "length", "timeout"]
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Finish:
    """How an answer ended, and what it took.

    Attributes:
        reason: "stop" (end token or stop text), "length" (max_tokens, or the context is
            full) or "timeout".
        n_input_tokens: Text tokens of the prompt. A medium takes no place in the prompt.
        n_output_tokens: Tokens generated, the end token not counted.
    """

    reason: FinishReason
    n_input_tokens: int
    n_output_tokens: int


@dataclass(frozen=True)
class Piece:
    """A part of an answer: the next text, and in the last piece how the answer ended."""

    text: str
    finish: Finish | None = None


class Engine:
    """A loaded model that answers. Safe to use from many threads."""

    def __init__(self, model: Any, processor: Any) -> None:
        """Answer with an `ImageBindLLM` in evaluation mode and its `ImageBindLLMProcessor`."""
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.end_ids = _end_ids(model, processor.tokenizer)
        self.max_context = _max_context(model)

    def stream(
        self,
        messages: Sequence[Mapping[str, str]],
        items: Sequence[Item] = (),
        sampling: Sampling | None = None,
        cache: CacheSettings | bool | None = None,
    ) -> Iterator[Piece]:
        """Answer, piece by piece.

        Args:
            messages: `{"role", "content"}` in order, content being text.
            items: The media that the answer is about; several are mixed by their weights.
            sampling: How tokens are chosen and where the answer ends; greedy by default.
            cache: The visual cache: True or settings (on), False (off), None (as the model
                folder says).

        Yields:
            Pieces of text as they come; the last one has `finish`. Closing the iterator
            stops the work before the next token.

        Raises:
            ConfigurationError: The prompt leaves no room in the model's context.
        """
        sampling = sampling or Sampling()
        started = time.monotonic()
        ids = self.prompt_ids(messages)
        n_room = self._room(len(ids), sampling)
        sampler, text = Sampler(sampling), AnswerText(self.tokenizer, sampling.stop)
        steps = _Steps(self.model, ids, self._injection(items, cache))
        reason: FinishReason = "length"
        n_output = 0
        while n_output < n_room:
            token = sampler.choose(steps.logits)
            if token in self.end_ids:
                reason = "stop"
                break
            n_output += 1
            if shown := text.push(token):
                yield Piece(shown)
            if text.stopped:
                break
            if sampling.timeout_s and time.monotonic() - started > sampling.timeout_s:
                reason = "timeout"
                break
            if n_output < n_room:
                steps.feed(token)
        shown = text.finish()
        yield Piece(shown, Finish("stop" if text.stopped else reason, len(ids), n_output))

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation, by the model's chat template, ready for the answer."""
        ids: list[int] = self.processor.encode(list(messages))
        return ids

    def _room(self, n_input: int, sampling: Sampling) -> int:
        room = self.max_context - n_input
        if room < 1:
            raise ConfigurationError(
                f"the prompt has {n_input} tokens, but the model's context holds "
                f"{self.max_context}; send a shorter conversation"
            )
        return min(room, sampling.max_tokens)

    def _injection(self, items: Sequence[Item], cache: CacheSettings | bool | None) -> Any:
        from ibllm_tools.preprocess import MediaBatch

        batch = MediaBatch.collate([items], self.processor.preprocess)
        batch = batch.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            return self.model.injection(*self.model.sense(batch, cache=cache))


class _Steps:
    """The forward calls of one answer; `logits` (V,) are those of the latest position."""

    def __init__(self, model: Any, ids: Sequence[int], injection: Any) -> None:
        self._model = model
        self._injection = injection
        self._cache: Any = None
        self.logits = self._forward(list(ids))

    def feed(self, token: int) -> None:
        self.logits = self._forward([token])

    def _forward(self, ids: list[int]) -> torch.Tensor:
        # Only here, never around a `yield`: inference mode would leak into the consumer.
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([ids], device=self._model.device),
                injection=self._injection,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = out.past_key_values
        logits: torch.Tensor = out.logits[0, -1]
        return logits


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(id_ for id_ in [*several, tokenizer.eos_token_id] if id_ is not None)


def _max_context(model: Any) -> int:
    length = getattr(model.config.text_config, "max_position_embeddings", None)
    return int(length) if length else UNBOUNDED


class Senses:
    """The encoder of a model without its LLM: media in, unit vectors out. Thread-safe."""

    def __init__(
        self, encoder: Any, config: PreprocessConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Embed with an `ImageBind` and the preprocessing that belongs to it."""
        self.encoder = encoder
        self.config = config
        self.device = device
        self.dtype = dtype

    def embed(self, rows: Sequence[Sequence[Item]]) -> torch.Tensor:
        """Embed each row's media, mixed by their weights.

        Args:
            rows: One or more items per row, of any modality.

        Returns:
            (N, D) float32 on the CPU; each row has length 1.

        Raises:
            ConfigurationError: The encoder has no trunk for a modality.
        """
        from ibllm_tools.mix import mix
        from ibllm_tools.preprocess import MediaBatch

        batch = MediaBatch.collate(rows, self.config).to(self.device, self.dtype)
        with torch.inference_mode():
            vectors = [self.encoder.encode(name, x).float() for name, x in batch.inputs.items()]
            weights = torch.cat([batch.weights[name] for name in batch.inputs])
            owners = torch.cat([batch.rows[name] for name in batch.inputs])
            mixed = mix(torch.cat(vectors), weights, owners, batch.n_rows)
            return torch.nn.functional.normalize(mixed, dim=-1).cpu()


class Placement(NamedTuple):
    """Where a model runs, and in which precision."""

    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def choose(cls, device: str | None, dtype: str | None) -> Placement:
        """Choose what is not given: an accelerator in bfloat16 where there is one, else the CPU.

        On a CPU, a `dtype` of None means as stored, with float16 widened to float32.

        Raises:
            ConfigurationError: There is no such device or dtype.
        """
        found = _default_device() if device is None else _named_device(device)
        if dtype is None:
            return cls(found, None if found.type == "cpu" else torch.bfloat16)
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise ConfigurationError(
                f'dtype is {dtype!r}; expected "float32", "bfloat16" or "float16"'
            )
        return cls(found, named)


def _default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f'device {name!r} cannot be used here; expected for example "cpu" or "cuda:0"'
        ) from error
    return device


class _Shelf:
    """Objects that are expensive to load, one per key; loading locks its own key alone."""

    def __init__(self) -> None:
        self._loaded: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """Return the object of `key`, calling `load` if there is none yet."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._loaded:
                self._loaded[key] = load()
            loaded: Loaded = self._loaded[key]
            return loaded

    def peek(self, key: Hashable) -> Any:
        """Return the object of `key`, or None if it is not loaded."""
        return self._loaded.get(key)


_engines = _Shelf()
_senses = _Shelf()


def open_engine(model: str = POCKET, device: str | None = None, dtype: str | None = None) -> Engine:
    """Return the engine of a model, loading it if this process has not yet.

    Args:
        model: "pocket", a folder, or a hub id.
        device: As in torch; by default an accelerator where there is one.
        dtype: "float32", "bfloat16" or "float16"; see `Placement.choose`.

    Raises:
        CheckpointError: There is no such model, or its files do not fit.
        ConfigurationError: There is no such device or dtype.
    """
    key = (_source(model), Placement.choose(device, dtype))
    return _engines.get(key, lambda: _load_engine(*key))


def open_senses(model: str = POCKET, device: str | None = None, dtype: str | None = None) -> Senses:
    """Return the encoder of a model without its LLM; arguments and errors as in `open_engine`.

    `model` may also be an encoder's own folder.
    """
    key = (_source(model), Placement.choose(device, dtype))
    return _senses.get(key, lambda: _load_senses(*key))


def _source(model: str) -> str:
    folder = find_folder(model)
    return model if folder is None else str(folder.resolve())


def _load_engine(source: str, placement: Placement) -> Engine:
    from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

    with _no_progress_bar():
        model = ImageBindLLM.from_pretrained(source, dtype=placement.dtype)
    shared = _senses.peek((source, placement))
    if shared is not None and shared.dtype == model.dtype:
        model.encoder = shared.encoder
    # Merged deltas cost no time per token; this model is never saved.
    model = model.merge().to(placement.device).eval()
    return Engine(model, ImageBindLLMProcessor.from_pretrained(source))


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar for each weight; answers may go to a terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load_senses(source: str, placement: Placement) -> Senses:
    from ibllm_tools.encoder import ImageBind
    from ibllm_tools.model.loading import fetch_folder

    folder = fetch_folder(source, allow_patterns=["*.json", "encoder/*"])
    encoder = folder / "encoder"
    device, dtype = placement.device, placement.dtype or torch.float32
    shared = _engines.peek((source, placement))
    if shared is not None and shared.model.dtype == dtype:
        return Senses(shared.model.encoder, shared.processor.preprocess, device, dtype)
    opened = ImageBind.from_pretrained(
        encoder if encoder.is_dir() else folder, device=device, dtype=dtype
    )
    return Senses(opened, _preprocess_config(folder), device, dtype)


def _preprocess_config(folder: Path) -> PreprocessConfig:
    """The preprocessing of a model folder; that of `imagebind_huge` where none is named."""
    from ibllm_tools.preprocess import PreprocessConfig

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return PreprocessConfig()
    try:
        return PreprocessConfig.from_dict(json.loads(path.read_text("utf-8"))["preprocess"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); save the model again, or copy the file again"
        ) from error
