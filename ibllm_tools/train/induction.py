"""A start for a tiny Llama from which copying and choosing are learned in minutes.

The model stays a plain Llama; only its first weights are chosen. The width is divided into
parts: a few flags, the token itself, the two tokens before it, the tool whose text it stands
in, and the tool that a question speaks for. Attention heads are set so that

```
layer 0   fetch the token before, the token before that, and the mark of the tool around
layer 1   a token finds the same token in a tool's text and takes that tool's mark
layer 2   the same match once more, after the first MLPs
layer 3   the votes of the question's tokens are summed; what followed the same two tokens
          before is copied (induction)
layer 4   a name begins with the token after the mark that has most votes; induction within
          the tool that has most votes
```

Source: induction heads, Olsson et al., "In-context learning and induction heads" (2022); the
heads for marks and votes are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ibllm_tools.train.tokenizer import (
    ASSISTANT,
    BOS,
    NAME_OPENS,
    SYSTEM,
    TOOL,
    TOOL_MARKS,
    USER,
)

CONST, ROLE, IS_TOOL, IS_USER, IS_BOS, CHOOSES, IN_TOOL, IN_USER = range(8)
VOTED, AFTER_MARK, SPARE, MUTE = 8, 9, 10, 11
N_FLAGS = 12
SMALLEST_WIDTH = 176
FLAG = 4.0
STEM = 0.8
ROPE_THETA = 1e8
_FUNCTION_WORDS = frozenset(
    {
        *("a", "an", "the", "this", "that", "these", "it", "its", "of", "to", "in", "on", "at"),
        *("for", "from", "with", "by", "as", "and", "or", "is", "are", "was", "be", "do", "does"),
        *("did", "can", "could", "would", "will", "should", "have", "has", "i", "me", "my", "you"),
        *("your", "we", "us", "he", "she", "they", "what", "which", "who", "where", "when", "how"),
        *("why", "please", "s", "t", *"的了吗是我你在把一个这那有请什么和"),
    }
)
_SLOW = 0.004  # radians a token: slower pairs hardly see distance


@dataclass(frozen=True)
class _Parts:
    """Which dimensions of the width hold what."""

    own: slice
    before: slice
    before2: slice
    inside: slice
    votes: slice


def _divide(width: int) -> _Parts:
    shares = (0.42, 0.165, 0.165, 0.09)
    edges = [N_FLAGS]
    for share in shares:
        edges.append(edges[-1] + int(share * width))
    edges.append(edges[-1] + (edges[-1] - edges[-2]))
    if edges[-1] > width:
        raise ValueError(
            f"width {width} is too small to divide; at least {SMALLEST_WIDTH} is needed"
        )
    return _Parts(*(slice(a, b) for a, b in pairwise(edges)))


class _Heads:
    """Writes single attention heads into the weights of a model."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        config = model.config
        self.layers = model.model.layers
        self.dim = config.hidden_size // config.num_attention_heads
        self.half = self.dim // 2
        steps = torch.arange(self.half) / self.half
        self.speeds = config.rope_parameters["rope_theta"] ** -steps
        self.slow = [i for i in range(self.half) if self.speeds[i] < _SLOW]
        self.parts = _divide(config.hidden_size)
        self.scale = self.dim**0.5

    def clear(self, layer: int, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Zero one head; return its query, key, value (D, W) and output (W, D) weights."""
        attention = self.layers[layer].self_attn
        rows = slice(head * self.dim, (head + 1) * self.dim)
        query, key, value = (
            p.weight[rows] for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        output = attention.o_proj.weight[:, rows]
        for weight in (query, key, value, output):
            weight.zero_()
        return query, key, value, output

    def look_back(self, layer: int, head: int, steps: int, logit: float = 8.0) -> None:
        """Attend to the token `steps` before and keep a projection of it."""
        query, key, value, output = self.clear(layer, head)
        for i in range(self.half):
            if self.speeds[i] < 0.03:
                break
            size = (logit * self.scale) ** 0.5 / FLAG
            angle = torch.tensor(float(self.speeds[i]) * steps)
            key[i, CONST] = size
            query[i, CONST] = size * angle.cos()
            query[i + self.half, CONST] = -size * angle.sin()
        part = self.parts.before if steps == 1 else self.parts.before2
        self._carry(value, output, self.parts.own, part)
        if steps == 1:
            self._pass_flags(value, output, {IS_TOOL: AFTER_MARK})

    def find_mark(self, layer: int, head: int) -> None:
        """Attend to the nearest mark of a tool or role before; keep which one it is."""
        query, key, value, output = self.clear(layer, head)
        for i in range(self.half):
            if 0.004 < self.speeds[i] < 0.05:
                size = (60.0 * self.scale) ** 0.5 / FLAG
                query[i, CONST], key[i, ROLE] = size, size
        self._carry(value, output, self.parts.own, self.parts.inside)
        self._pass_flags(value, output, {IS_TOOL: IN_TOOL, IS_USER: IN_USER})

    def match(self, layer: int, head: int, *, by_two: bool = False) -> None:
        """Attend from a token to its like in a tool's text and take that tool's mark.

        Alike are single tokens, or `by_two` tokens that follow the same token.
        """
        query, key, value, output = self.clear(layer, head)
        own, before, count = self.parts.own, self.parts.before, len(self.slow) - 2
        if by_two:
            self._compare(query, key, own, own, 14.0, pairs=(0, count * 2 // 3))
            self._compare(query, key, before, before, 8.0, pairs=(count * 2 // 3, count))
            self._bias(query, key, CONST, {IN_TOOL: 4.0, IS_BOS: 19.0, MUTE: -12.0})
        else:
            self._compare(query, key, own, own, 15.0)
            self._bias(query, key, CONST, {IN_TOOL: 4.0, IS_BOS: 13.0, MUTE: -12.0})
        self._copy(value, output, self.parts.inside, self.parts.votes)
        self._pass_flags(value, output, {IN_TOOL: VOTED})

    def gather(self, layer: int, head: int) -> None:
        """Sum the votes of the question's tokens at every later position."""
        query, key, value, output = self.clear(layer, head)
        self._bias(query, key, CONST, {VOTED: 40.0, IN_USER: 40.0})
        self._copy(value, output, self.parts.votes, self.parts.votes, gain=2.0)

    def choose(self, layer: int, head: int) -> None:
        """At the opening of a name, attend to the first token of the tool with most votes."""
        query, key, value, output = self.clear(layer, head)
        self._compare(query, key, self.parts.votes, self.parts.inside, 300.0)
        self._bias(query, key, CONST, {IS_BOS: 350.0})
        self._bias(query, key, CHOOSES, {AFTER_MARK: 700.0}, first=1)
        self._copy(value, output, self.parts.own, self.parts.own, gain=4.0)

    def induce(self, layer: int, head: int, *, voted: bool = False) -> None:
        """Copy what followed the same two tokens before."""
        query, key, value, output = self.clear(layer, head)
        third = len(self.slow) - 2
        self._compare(query, key, self.parts.own, self.parts.before, 20.0, pairs=(0, third // 2))
        part = self.parts.votes if voted else self.parts.before
        other = self.parts.inside if voted else self.parts.before2
        self._compare(query, key, part, other, 12.0, pairs=(third // 2, third))
        self._bias(query, key, CONST, {IS_BOS: 13.0})
        self._copy(value, output, self.parts.own, self.parts.own, gain=4.0)

    def _compare(
        self,
        query: Tensor,
        key: Tensor,
        asked: slice,
        found: slice,
        logit: float,
        pairs: tuple[int, int] | None = None,
    ) -> None:
        first, last = pairs or (0, len(self.slow) - 2)
        slow = self.slow[first:last]
        dims = [*slow, *(i + self.half for i in slow)]
        code = self._code(asked, found, len(dims))
        size = (logit * self.scale / len(dims)) ** 0.5
        for i, dim in enumerate(dims):
            query[dim, asked], key[dim, found] = size * code[0][i], size * code[1][i]

    def _code(self, asked: slice, found: slice, count: int) -> tuple[Tensor, Tensor]:
        """Rows that read the same projection from two parts of the width."""
        own = self.parts.own
        n_asked, n_found = asked.stop - asked.start, found.stop - found.start
        if asked == own and found == own:
            rows = _orthogonal(count, n_asked)
            return rows, rows
        mixed = _orthogonal(count, n_found)
        if asked == own:
            return mixed @ self.projection(found), mixed
        if n_asked != n_found:
            raise ValueError("parts of different widths cannot be compared")
        return mixed, mixed

    def projection(self, part: slice) -> Tensor:
        """How a token is written into a smaller part: a fixed random projection."""
        generator = torch.Generator().manual_seed(part.start)
        own = self.parts.own
        rows = torch.randn(part.stop - part.start, own.stop - own.start, generator=generator)
        return torch.nn.functional.normalize(rows, dim=1)

    def _carry(self, value: Tensor, output: Tensor, own: slice, part: slice) -> None:
        count = part.stop - part.start
        value[:count, own] = self.projection(part)
        output[part, :count] = torch.eye(count)

    def _copy(
        self, value: Tensor, output: Tensor, read: slice, write: slice, gain: float = 1.0
    ) -> None:
        count = min(self.dim - 4, read.stop - read.start)
        rows = _orthogonal(count, read.stop - read.start)
        value[:count, read] = rows
        output[write, :count] = gain * rows.T * (read.stop - read.start) / count

    def _pass_flags(self, value: Tensor, output: Tensor, flags: dict[int, int]) -> None:
        for i, (read, write) in enumerate(flags.items()):
            value[self.dim - 1 - i, read] = 1.0
            output[write, self.dim - 1 - i] = 1.0

    def _bias(
        self, query: Tensor, key: Tensor, asks: int, logits: dict[int, float], first: int = 0
    ) -> None:
        last, other = self.slow[-1], self.slow[-2]
        dims = (last, last + self.half, other, other + self.half)
        for i, (flag, logit) in enumerate(logits.items(), first):
            size = (abs(logit) * self.scale) ** 0.5 / FLAG  # alike in size: one rate fits both
            query[dims[i], asks] = size
            key[dims[i], flag] = size if logit > 0 else -size


def _orthogonal(rows: int, columns: int) -> Tensor:
    """Random rows whose projections keep dot products: lengths are one in the mean."""
    flat = torch.randn(max(rows, columns), min(rows, columns))
    square: Tensor = torch.linalg.qr(flat)[0]
    return square.T if rows <= columns else square * (rows / columns) ** 0.5


@torch.no_grad()
def build_in_heads(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Set the first weights of a model in place; needs width 176, three heads, five layers or more.

    Smaller models keep their random weights.
    """
    if not _is_large_enough(model):
        return
    _scale_weights(model)
    heads = _Heads(model)
    _write_embeddings(model, tokenizer, heads)
    for steps in (1, 2):
        heads.look_back(0, steps - 1, steps)
    heads.find_mark(0, 2)
    heads.match(1, 0)
    heads.match(2, 0, by_two=True)
    heads.gather(3, 0)
    heads.induce(3, 1)
    heads.choose(4, 0)
    heads.induce(4, 1, voted=True)


def _is_large_enough(model: LlamaForCausalLM) -> bool:
    config = model.config
    deep = config.num_hidden_layers >= 5 and config.num_attention_heads >= 3
    return bool(deep and config.hidden_size >= SMALLEST_WIDTH)


def _scale_weights(model: LlamaForCausalLM) -> None:
    width = model.config.hidden_size
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for linear in (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            mlp.gate_proj,
            mlp.up_proj,
        ):
            linear.weight.normal_(0.0, width**-0.5)
        attention.o_proj.weight.normal_(0.0, 0.1 * width**-0.5)
        mlp.down_proj.weight.zero_()


def _write_embeddings(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, heads: _Heads
) -> None:
    parts = heads.parts
    table = model.model.embed_tokens.weight
    table.zero_()
    table[:, parts.own] = _draw_tokens(tokenizer, parts.own.stop - parts.own.start)
    table[:, CONST] = FLAG
    for token, flags in (
        (BOS, (ROLE, IS_BOS)),
        (SYSTEM, (ROLE,)),
        (USER, (ROLE, IS_USER)),
        (ASSISTANT, (ROLE,)),
        (TOOL, (ROLE,)),
        (NAME_OPENS, (CHOOSES,)),
        *((mark, (ROLE, IS_TOOL)) for mark in TOOL_MARKS),
    ):
        table[tokenizer.convert_tokens_to_ids(token), list(flags)] = FLAG
    _tell_marks_apart(table, tokenizer, heads)
    table[[i for i, name in enumerate(_names(tokenizer)) if _is_mute(name)], MUTE] = FLAG
    own = table[:, parts.own]  # all rows get one length: a longer one would draw attention
    flagged = table[:, :N_FLAGS].pow(2).sum(1, keepdim=True) - FLAG**2
    length = (own.shape[1] - flagged).clamp(min=1.0).sqrt()
    table[:, parts.own] = length * torch.nn.functional.normalize(own, dim=1)
    start = table[tokenizer.convert_tokens_to_ids(BOS)]  # where heads rest: nothing to copy
    start[SPARE] = start[parts.own].norm()
    start[parts.own] = 0.0
    model.lm_head.weight.zero_()
    model.lm_head.weight[:, parts.own] = 0.1 * table[:, parts.own]


def _draw_tokens(tokenizer: PreTrainedTokenizerFast, width: int) -> Tensor:
    """Random rows (V, width); words of one stem, in any case, are alike."""
    stems = [_stem(name) for name in _names(tokenizer)]
    shared = {stem: torch.randn(width) for stem in sorted(set(stems))}
    return torch.stack(
        [STEM * shared[s] + (1 - STEM**2) ** 0.5 * torch.randn(width) for s in stems]
    )


def _names(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [tokenizer.decode([i]) for i in range(len(tokenizer))]


def _is_mute(token: str) -> bool:
    """Whether a token says nothing about a tool: no letter, or a function word."""
    return not any(c.isalpha() for c in token) or token.lower() in _FUNCTION_WORDS


def _stem(word: str) -> str:
    """The word in lower case without a common ending; other tokens as they are."""
    if not (word.isascii() and word.isalpha() and len(word) > 2):
        return word
    word = word.lower()
    for ending in ("ing", "ies", "es", "ed", "er", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _tell_marks_apart(table: Tensor, tokenizer: PreTrainedTokenizerFast, heads: _Heads) -> None:
    """Let the marks of tools be at right angles where votes are written."""
    own, inside = heads.parts.own, heads.parts.inside
    projection = heads.projection(inside)
    count = min(len(TOOL_MARKS), projection.shape[0])
    rows = torch.linalg.pinv(projection).T[:count]
    for mark, row in zip(TOOL_MARKS[:count], rows, strict=True):
        table[tokenizer.convert_tokens_to_ids(mark), own] = row
