"""Tool calls with the JSON skeleton forced: the model chooses a name and the values, no more.

```
<|call|>{"name": "… name: one of those offered …", "arguments": {"key": …value…, …}}<|end|>
```
Each row of a batch is in its own place of its own skeleton; all go one token at a time through
the LLM. Choices are greedy. The chat model's grammar (another module) serves any schema; this
one serves the scorecard's tools: flat objects of strings, numbers and true/false, and values of
any other type as free JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibllm_tools.evaluate.asking import pad_left

if TYPE_CHECKING:
    from ibllm_tools.engine import Engine

CALL = "<|call|>"
OPENING = f'{CALL}{{"name": "'
LONGEST_VALUE = 48
ROWS = 32
_NUMBER_CHARACTERS = frozenset("0123456789+-.eE")


@dataclass(frozen=True)
class Call:
    """A call as it was decoded: `arguments` is None where a value is no JSON."""

    name: str
    arguments: dict[str, Any] | None
    text: str


@dataclass(frozen=True)
class Decoded:
    """What a model does with one prompt.

    Attributes:
        wants_call: Its own first token begins a call.
        call: The call where one is forced.
    """

    wants_call: bool
    call: Call


class Vocabulary:
    """What each token of a tokenizer may stand for inside a value: masks (V,) of tokens."""

    def __init__(self, tokenizer: Any) -> None:
        """Decode every token once."""
        self.tokenizer = tokenizer
        special = set(tokenizer.all_special_ids)
        texts = ["" if i in special else tokenizer.decode([i]) for i in range(len(tokenizer))]
        plain = [bool(t) and all(c >= " " for c in t) for t in texts]
        quoted = [t.startswith('"') for t in texts]
        self.any = torch.tensor([bool(t) for t in texts])
        self.inside = torch.tensor([p and '"' not in t for p, t in zip(plain, texts, strict=True)])
        self.closing = torch.tensor(quoted)
        self.number = torch.tensor([bool(t) and set(t) <= _NUMBER_CHARACTERS for t in texts])
        self.after_number = torch.tensor([t[:1] in (",", "}") and bool(t) for t in texts])

    def encode(self, text: str) -> list[int]:
        """Token ids of a part of a call."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens as they are written."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text


@dataclass
class Skeleton:
    """Where one row is in its call; `choose` gives the next token, `done` says there is none.

    Attributes:
        words: The vocabulary.
        tools: The properties of each offered tool that its call holds, by name.
        queue: Tokens that are forced next.
        names: Token sequences of the names that are still possible, while the name is chosen.
        types: JSON types of the values still to come.
        joints: Texts between the values, and after the last.
        value: Tokens of the value being chosen; None outside of values.
    """

    words: Vocabulary
    tools: Mapping[str, Mapping[str, Any]]
    queue: list[int] = field(default_factory=list)
    names: dict[str, list[int]] = field(default_factory=dict)
    types: list[str] = field(default_factory=list)
    joints: list[str] = field(default_factory=list)
    value: list[int] | None = None
    name: str = ""
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the choice of a name; `OPENING` is part of the prompt."""
        self.names = {
            name: self.words.encode(name + self._joints(tool)[0])
            for name, tool in self.tools.items()
        }

    @property
    def done(self) -> bool:
        """Whether the call is complete."""
        return bool(self.name) and not self.queue and self.value is None and not self.joints

    def choose(self, logits: Tensor) -> int:
        """Choose the next token by the logits (V,) where there is a choice."""
        if not self.queue and not self.name:
            token = self._choose_name(logits)
        elif self.queue:
            token = self.queue.pop(0)
        else:
            token = self._choose_value(logits)
        self.ids.append(token)
        if self.name and not self.queue and self.value is None and self.types:
            self.value = []
        return token

    def _choose_name(self, logits: Tensor) -> int:
        depth = len(self.ids)
        options = sorted({ids[depth] for ids in self.names.values()})
        token = options[int(logits[options].argmax())]
        self.names = {n: ids for n, ids in self.names.items() if ids[depth] == token}
        if len(self.names) == 1:
            [(self.name, ids)] = self.names.items()
            self.queue = ids[depth + 1 :]
            tool = self.tools[self.name]
            self.types, self.joints = _types(tool), self._joints(tool)[1:]
        return token

    def _choose_value(self, logits: Tensor) -> int:
        assert self.value is not None
        kind = self.types[0]
        joint = self.words.encode(self.joints[0])
        if kind == "boolean":
            ways = [self.words.encode(word) for word in ("true", "false")]
            best = ways[int(logits[[way[0] for way in ways]].argmax())]
            return self._end([*best, *joint])
        allowed, closing = self._options(kind)
        if len(self.value) >= LONGEST_VALUE or not (allowed | closing).any():
            return self._end(joint)
        token = int(logits.masked_fill(~(allowed | closing), -torch.inf).argmax())
        if closing[token]:
            return self._end(joint)
        self.value.append(token)
        if kind not in ("string", "number") and _is_json(self.words.decode(self.value)):
            return self._end([token, *joint])
        return token

    def _options(self, kind: str) -> tuple[Tensor, Tensor]:
        """Tokens that a value may go on with, and those that end it."""
        assert self.value is not None
        text = self.words.decode(self.value) if self.value else ""
        nothing = torch.zeros_like(self.words.any)
        if kind == "string":
            escaped = (len(text) - len(text.rstrip("\\"))) % 2 == 1
            return (self.words.any, nothing) if escaped else (self.words.inside, self.words.closing)
        if kind == "number":
            has_digit = any(c.isdigit() for c in text)
            return self.words.number, self.words.after_number if has_digit else nothing
        return self.words.any, nothing

    def _end(self, tokens: list[int]) -> int:
        """End the value: the first of these tokens is next, the others follow."""
        self.value = None
        self.types.pop(0)
        self.joints.pop(0)
        self.queue = tokens[1:]
        return tokens[0]

    def _joints(self, properties: Mapping[str, Any]) -> list[str]:
        """The texts before the first value, between values, and after the last."""
        joints, text = [], '", "arguments": {'
        for i, (key, schema) in enumerate(properties.items()):
            quote = '"' if _type(schema) == "string" else ""
            text += (", " if i else "") + f"{json.dumps(key, ensure_ascii=False)}: {quote}"
            joints.append(text)
            text = quote
        return [*joints, text + "}}" + str(self.words.tokenizer.eos_token)]

    def call(self) -> Call:
        """Read the finished call."""
        text = '{"name": "' + self.words.decode(self.ids)
        text = text.removesuffix(self.words.tokenizer.eos_token)
        try:
            arguments = json.loads(text)["arguments"]
        except (ValueError, KeyError, TypeError):
            arguments = None
        return Call(self.name, arguments, text)


def held_properties(
    tool: Mapping[str, Any], keys: Collection[str] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Return the properties that a call of a tool holds: `keys`, else those required, else all."""
    parameters = tool["function"].get("parameters") or {}
    properties: dict[str, Any] = parameters.get("properties") or {}
    kept = keys if keys is not None else parameters.get("required") or properties
    return {key: schema for key, schema in properties.items() if key in kept}


def _types(properties: Mapping[str, Any]) -> list[str]:
    return [_type(schema) for schema in properties.values()]


def _type(schema: Mapping[str, Any]) -> str:
    found = schema.get("type", "string")
    found = found[0] if isinstance(found, list) else found
    return "number" if found in ("integer", "number") else str(found)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def can_call(engine: Engine) -> bool:
    """Tell whether a model has the token that begins a call."""
    return CALL in engine.tokenizer.get_vocab()


@torch.inference_mode()
def force_calls(
    engine: Engine,
    prompts: Sequence[list[int]],
    tools: Sequence[Mapping[str, Mapping[str, Any]]],
) -> list[Decoded]:
    """Decode one forced call for each prompt of a batch.

    Args:
        engine: The loaded model; `can_call` holds.
        prompts: (B) token ids that end where the answer begins.
        tools: (B) for each the tools offered, at least one: name to `held_properties`.

    Returns:
        (B) calls, and whether the model would have called of its own accord.
    """
    words = Vocabulary(engine.tokenizer)
    rows = [Skeleton(words, offered) for offered in tools]
    opening = words.encode(OPENING)
    ids, mask = pad_left([p + opening for p in prompts], engine.processor.pad_token_id)
    model, cache = engine.model, None
    first: Tensor | None = None
    while not all(row.done for row in rows):
        out = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :].to(model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=len(opening) + 1 if cache is None else 1,
        )
        cache, logits = out.past_key_values, out.logits.float().cpu()
        first = logits[:, 0].argmax(-1) if first is None else first
        filler = engine.processor.pad_token_id
        tokens = [
            filler if row.done else row.choose(scores)
            for row, scores in zip(rows, logits[:, -1], strict=True)
        ]
        ids = torch.tensor(tokens)[:, None]
        mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype)], 1)
    assert first is not None
    begins = engine.tokenizer.convert_tokens_to_ids(CALL)
    return [
        Decoded(wants == begins, row.call())
        for wants, row in zip(first.tolist(), rows, strict=True)
    ]
