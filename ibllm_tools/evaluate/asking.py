"""How questions are put to a model: one by one through the chat model, or many at once.

```
exhibits -> features, once -> mix and cache -> generate, many rows a batch -> answers
```
The batch takes the chat model's own parts (template, encoder, cache, greedy decoding), so it
gives the same answers in a tenth of the time; the scorecard measures how often it does.
`through="chat"` asks everything by `ChatImageBindLLM.invoke`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import LogitsProcessor

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import Media
from ibllm_tools.mix import mix

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.decoding import NoteNames
    from ibllm_tools.engine import Engine

Turns = list[dict[str, str]]
"""A conversation: `{"role", "content"}` in order; the media belong to the first question."""

MAX_TOKENS = 48
ENCODE_ROWS = 32
ANSWER_ROWS = 128


@dataclass(frozen=True)
class Shown:
    """What one request shows: one medium, or several to be mixed.

    Attributes:
        media: Content blocks with their weights.
        features: (joint,) of each medium, before the cache.
        weights: Of each medium.
    """

    media: tuple[Media, ...]
    features: tuple[Tensor, ...]
    weights: tuple[float, ...] = (1.0,)

    @property
    def feature(self) -> Tensor:
        """(joint,) of the first medium."""
        return self.features[0]


def mixed(parts: Sequence[tuple[Shown, float]]) -> Shown:
    """Show several media at once, by weights; a part of weight 0 is left out."""
    kept = [(shown, weight) for shown, weight in parts if weight > 0]
    return Shown(
        media=tuple(_weighted(shown.media[0], weight) for shown, weight in kept),
        features=tuple(shown.feature for shown, _ in kept),
        weights=tuple(weight for _, weight in kept),
    )


def user(question: str) -> Turns:
    """Return a conversation of one question."""
    return [{"role": "user", "content": question}]


class Interviewer:
    """Asks one model; every answer is greedy."""

    def __init__(
        self,
        model: str = "pocket",
        *,
        device: str | None = None,
        through: Literal["batch", "chat"] = "batch",
        progress: bool = True,
    ) -> None:
        """Ask `model` in batches, or everything by the chat model's `invoke`."""
        from ibllm_tools.chat_models import ChatImageBindLLM

        self.model = model
        self.through = through
        self.progress = progress
        self.chat = ChatImageBindLLM(model=model, device=device, max_tokens=MAX_TOKENS)

    @property
    def engine(self) -> Engine:
        """The loaded model, shared with the chat model."""
        from ibllm_tools.engine import open_engine

        return open_engine(self.model, device=self.chat.device)

    @property
    def has_cache(self) -> bool:
        """Whether the model comes with a visual cache."""
        return self.engine.model.cache is not None

    def show(self, media: Sequence[Media], task: str = "encoding") -> list[Shown]:
        """Encode each medium once."""
        rows = [[medium] for medium in media]
        features = [
            self._encode(rows[first : first + ENCODE_ROWS])
            for first in self.track(range(0, len(rows), ENCODE_ROWS), task)
        ]
        units = [unit for part in features for unit in part]
        return [Shown((m,), (unit.float().cpu(),)) for m, unit in zip(media, units, strict=True)]

    def _encode(self, rows: Sequence[Sequence[Media]]) -> Tensor:
        from ibllm_tools.media import load
        from ibllm_tools.preprocess import MediaBatch

        engine = self.engine
        items = [[load(medium) for medium in row] for row in rows]
        batch = MediaBatch.collate(items, engine.processor.preprocess)
        batch = batch.to(engine.model.device, engine.model.dtype)
        with torch.inference_mode():
            features: Tensor = engine.model.sense(batch, cache=False)[0]
        return features

    def ask(
        self,
        talks: str | Sequence[Turns],
        shown: Sequence[Shown | None],
        *,
        cache: CacheSettings | bool | None = None,
        max_tokens: int = MAX_TOKENS,
        task: str = "asking",
    ) -> list[str]:
        """Answer one question about each, or one conversation for each.

        Args:
            talks: One question for all, or (N) conversations that end with a question.
            shown: (N) what each request shows; None for a question without media.
            cache: As for `ImageBindLLM.sense`.
            max_tokens: The longest answer.
            task: What the progress bar says.

        Returns:
            (N) answers.
        """
        rows = [user(talks)] * len(shown) if isinstance(talks, str) else list(talks)
        if self.through == "chat":
            return self.invoke(rows, shown, cache=cache, max_tokens=max_tokens, task=task)
        prompts = [self.engine.prompt_ids(turns) for turns in rows]
        return self.answer(prompts, shown, cache=cache, max_tokens=max_tokens, task=task)

    def answer(
        self,
        prompts: Sequence[list[int]],
        shown: Sequence[Shown | None],
        *,
        cache: CacheSettings | bool | None = None,
        max_tokens: int = MAX_TOKENS,
        task: str = "asking",
    ) -> list[str]:
        """Answer (N) prompts of token ids in batches; the rest as for `ask`."""
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), shown[i] is None))
        answers = [""] * len(prompts)
        starts = range(0, len(order), ANSWER_ROWS)
        for first in self.track(starts, task):
            chosen = order[first : first + ANSWER_ROWS]
            features = self._features([shown[i] for i in chosen], cache)
            texts = self._generate([prompts[i] for i in chosen], features, max_tokens)
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = text
        return answers

    def _features(
        self, shown: Sequence[Shown | None], cache: CacheSettings | bool | None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, joint) as `ImageBindLLM.sense` would give them, and has_media (B,)."""
        model = self.engine.model
        present = torch.tensor([s is not None for s in shown])
        rows = [i for i, s in enumerate(shown) if s is not None for _ in s.features]
        if not rows:
            return torch.zeros(len(shown), model.config.joint_dim, device=model.device), present
        parts = torch.stack([f for s in shown if s is not None for f in s.features])
        weights = torch.tensor([w for s in shown if s is not None for w in s.weights])
        settings = self.cache_settings(cache)
        early = bool(getattr(model.config, "cache_before_mixing", False))
        if settings is not None and early:
            parts = model.cache.blend(normalize(parts, dim=-1), settings)
        features = mix(parts, weights, torch.tensor(rows), len(shown))
        if settings is not None and not early:
            features = torch.where(
                present[:, None], model.cache.blend(features, settings), features
            )
        return features.to(model.device), present.to(model.device)

    def cache_settings(self, cache: CacheSettings | bool | None = None) -> CacheSettings | None:
        """Return the settings that a request with `cache` uses; None where the cache is off."""
        from ibllm_tools.model.sensing import cache_settings

        model = self.engine.model
        if cache is None:
            cache = bool(model.config.use_cache_by_default and self.has_cache)
        if isinstance(cache, bool):
            return cache_settings(model.config) if cache else None
        return cache

    def _generate(
        self, prompts: Sequence[list[int]], features: tuple[Tensor, Tensor], max_tokens: int
    ) -> list[str]:
        from ibllm_tools.decoding import split_reasoning

        engine = self.engine
        ids, mask = pad_left(prompts, engine.processor.pad_token_id)
        room = min(max_tokens, engine.max_context - ids.shape[1])
        if room < 1:
            raise ConfigurationError(
                f"a conversation has {ids.shape[1]} tokens, but the model's context holds "
                f"{engine.max_context}"
            )
        out = engine.model.generate(
            ids.to(engine.model.device),
            attention_mask=mask.to(engine.model.device),
            features=features[0],
            has_media=features[1],
            max_new_tokens=room,
            do_sample=False,
            eos_token_id=sorted(engine.end_ids) or None,
            pad_token_id=engine.processor.pad_token_id,
            logits_processor=[_NoteRule(engine.note_names, ids.shape[1])],
        )
        texts = engine.processor.batch_decode(out[:, ids.shape[1] :].tolist())
        return [split_reasoning(text, engine.reasoning)[1] for text in texts]

    def invoke(
        self,
        talks: str | Sequence[Turns],
        shown: Sequence[Shown | None],
        *,
        cache: CacheSettings | bool | None = None,
        max_tokens: int = MAX_TOKENS,
        task: str = "asking",
    ) -> list[str]:
        """Answer as `ask` does, one by one through `ChatImageBindLLM.invoke`."""
        rows = [user(talks)] * len(shown) if isinstance(talks, str) else list(talks)
        setting = asdict(cache) if cache is not None and not isinstance(cache, bool) else cache
        requests = [_messages(t, s) for t, s in zip(rows, shown, strict=True)]
        return [
            str(self.chat.invoke(messages, max_tokens=max_tokens, visual_cache=setting).text)
            for messages in self.track(requests, task)
        ]

    def track(self, steps: Iterable[Any], task: str) -> Iterator[Any]:
        """Go through steps with a progress bar on stderr."""
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)  # the scorecard has stdout for itself
        yield from track(
            list(steps),
            description=f"{task:<28}",
            console=console,
            disable=not (self.progress and console.is_terminal),
            transient=True,
        )


class _NoteRule(LogitsProcessor):  # type: ignore[misc]
    """The engine's rule for notes, for rows of `generate`."""

    def __init__(self, names: NoteNames | None, n_prompt: int) -> None:
        self._names, self._n_prompt = names, n_prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, ids in enumerate(input_ids[:, self._n_prompt :].tolist() if self._names else ()):
            named = self._names.named(ids) if self._names else []
            if named:
                scores[row, named] = -torch.inf
        return scores


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Pad prompts to ids (B, T) and their mask (B, T)."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, length - len(prompt) :] = torch.tensor(prompt)
        mask[i, length - len(prompt) :] = 1
    return ids, mask


def _weighted(medium: Media, weight: float) -> Media:
    return Media({**medium, "extras": {**medium["extras"], "weight": float(weight)}})


def _messages(turns: Turns, shown: Shown | None) -> list[BaseMessage]:
    """The conversation as LangChain's messages; the media stand in the first question."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    classes: dict[str, Any] = {"user": HumanMessage, "assistant": AIMessage}
    media = list(shown.media) if shown else []
    messages: list[BaseMessage] = []
    for turn in turns:
        if turn["role"] == "user" and media:
            messages.append(HumanMessage([turn["content"], *media]))
            media = []
        else:
            messages.append(classes.get(turn["role"], SystemMessage)(turn["content"]))
    return messages
