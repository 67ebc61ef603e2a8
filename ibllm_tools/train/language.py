"""The base language model: its tokenizer, its text and its pretraining.

Text is drawn once, tokenised, and kept in batches of similar length. The model has never
seen media here; questions about media get random answers, so that it learns the language of
the answers and leaves the choice to what is injected later.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.loop import Run, Schedule, run_stage
from ibllm_tools.train.talk import (
    Scene,
    Turn,
    knowledge_turn,
    small_talk_turn,
    talk,
)

PAD, BOS, END, SYSTEM, USER, ASSISTANT, TOOL = SPECIAL_TOKENS = (
    "<|pad|>",
    "<|bos|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
)
IGNORED = -100
CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}"
    "{%- if tools %}{{ '<|system|>' }}"
    "{%- for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{%- endfor %}{{ '<|end|>' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|' + message['role'] + '|>' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}"
    "{%- elif message['content'] %}"
    "{%- for block in message['content'] if block['type'] == 'text' %}"
    "{{- block['text'] }}{%- endfor %}{%- endif %}"
    "{{- '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
# Letters, Han characters and kana run together; digits, spaces and punctuation stand alone.
_PIECES = r"\p{Han}+|[\p{L}\p{M}]+|\p{N}|\s|[^\s\p{L}\p{M}\p{N}]"


@dataclass(frozen=True)
class LanguageSizes:
    """Sizes of the base language model and of its text."""

    vocab_size: int = 2048
    width: int = 192
    hidden: int = 512
    n_layers: int = 6
    n_heads: int = 3
    n_context: int = 1024
    n_talks: int = 60_000
    n_facts: int = 30_000
    n_captions: int = 20_000
    n_instructions: int = 12_000
    batch_tokens: int = 3072


def train_tokenizer(lines: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-complete BPE tokenizer with a chat template.

    Digits, spaces and punctuation are single tokens; every byte is in the vocabulary, so any
    text survives encoding and decoding.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: object) -> PreTrainedTokenizerFast:
    """Give a trained tokenizer its special tokens and chat template."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, TOOL],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_language_model(
    sizes: LanguageSizes, tokenizer: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """Build the base language model, a plain Llama with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.width,
        intermediate_size=sizes.hidden,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads,
        num_key_value_heads=sizes.n_heads,
        max_position_embeddings=sizes.n_context,
        tie_word_embeddings=False,
        rms_norm_eps=1e-6,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",  # on a CPU explicit products train faster than SDPA
    )
    return LlamaForCausalLM(config)


def encode_chat(
    tokenizer: PreTrainedTokenizerFast, turns: Sequence[Turn]
) -> tuple[list[int], list[bool]]:
    """Turn a conversation into ids and a mask of the answers.

    The ids equal those of the chat template. An answer's mask includes its end token.
    """
    ids, answers = [tokenizer.bos_token_id], [False]
    for question, answer in turns:
        asked = _encode(tokenizer, f"{USER}{question}{END}{ASSISTANT}")
        told = _encode(tokenizer, f"{answer}{END}")
        ids += asked + told
        answers += [False] * len(asked) + [True] * len(told)
    return ids, answers


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def draw_scene(rng: random.Random, facts: Sequence[Fact]) -> Scene:
    """Draw what a random row could show: mostly one thing, sometimes two or none."""
    share = rng.random()
    if share < 0.8:
        return Scene((rng.choice(facts),))
    if share < 0.96:
        return Scene(tuple(rng.sample(list(facts), 2)))
    return Scene(())


def draw_talks(rng: random.Random, facts: Sequence[Fact], count: int) -> list[list[Turn]]:
    """Conversations about media that the text does not show."""
    return [talk(rng, draw_scene(rng, facts), facts) for _ in range(count)]


def draw_knowledge(rng: random.Random, facts: Sequence[Fact], count: int) -> list[list[Turn]]:
    """Conversations that need no media: facts, stories and small talk."""
    rows = []
    for _ in range(count):
        if rng.random() < 0.08:
            rows.append([small_talk_turn(rng)])
            continue
        chinese = rng.random() < 0.35
        rows.append([knowledge_turn(rng, facts, chinese) for _ in range(rng.choice((1, 1, 2)))])
    return rows


def pick_instructions(
    rng: random.Random, rows: Sequence[dict[str, str]], count: int, longest: int = 220
) -> list[list[Turn]]:
    """Short instructions of the pack, as one-turn conversations."""
    turns = []
    for row in rows:
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        if row["kind"] == "instruction" and len(question) + len(row["output"]) <= longest:
            turns.append([(question.strip(), row["output"].strip())])
    rng.shuffle(turns)
    return turns[:count]


def pick_captions(rng: random.Random, rows: Sequence[dict[str, str]], count: int) -> list[str]:
    """Image captions of the pack (text only)."""
    captions = [
        r["output"].replace(" .", ".").replace(" ,", ",") for r in rows if r["kind"] == "caption"
    ]
    rng.shuffle(captions)
    return captions[:count]


@dataclass(frozen=True)
class Row:
    """One tokenised text.

    Attributes:
        ids: Token ids.
        learned: Whether each token is a target.
        shown: Concepts that the row's media show; -1 for none.
        has_media: Whether the row has media.
    """

    ids: list[int]
    learned: list[bool]
    shown: tuple[int, int] = (-1, -1)
    has_media: bool = False


@dataclass(frozen=True)
class Batch:
    """Padded rows: ids and labels (B, T) int64, concepts (B, 2), media (B,) bool."""

    ids: Tensor
    labels: Tensor
    shown: Tensor
    has_media: Tensor


def make_batches(rows: Sequence[Row], pad: int, batch_tokens: int) -> list[Batch]:
    """Sort rows by length and pad them into batches of exactly `batch_tokens` tokens.

    Lengths are rounded up to divisors of `batch_tokens`, so that matrix products always have
    the same shape: on a CPU each new shape costs more than the product itself. Longer rows
    are left out.
    """
    lengths = [n for n in range(16, batch_tokens + 1, 8) if batch_tokens % n == 0]
    buckets: dict[int, list[Row]] = {n: [] for n in lengths}
    for row in rows:
        length = next((n for n in lengths if n >= len(row.ids)), None)
        if length is not None:
            buckets[length].append(row)
    batches = []
    for length, bucket in buckets.items():
        count = batch_tokens // length
        for first in range(0, len(bucket), count):
            group = bucket[first : first + count]
            batches.append(_pad_rows((group * count)[:count], length, pad))  # the last repeats
    return batches


def _pad_rows(group: Sequence[Row], length: int, pad: int) -> Batch:
    ids = torch.full((len(group), length), pad)
    labels = torch.full((len(group), length), IGNORED)
    for i, row in enumerate(group):
        tokens = torch.tensor(row.ids)
        ids[i, : len(tokens)] = tokens
        labels[i, : len(tokens)] = tokens.masked_fill(~torch.tensor(row.learned), IGNORED)
    shown = torch.tensor([row.shown for row in group])
    return Batch(ids, labels, shown, torch.tensor([row.has_media for row in group]))


def draw_text(
    rng: random.Random, facts: Sequence[Fact], text: Sequence[dict[str, str]], sizes: LanguageSizes
) -> tuple[list[list[Turn]], list[str]]:
    """All pretraining text: conversations and captions."""
    chats = draw_talks(rng, facts, sizes.n_talks)
    chats += draw_knowledge(rng, facts, sizes.n_facts)
    chats += pick_instructions(rng, text, sizes.n_instructions)
    return chats, pick_captions(rng, text, sizes.n_captions)


def train_language(
    run: Run,
    sizes: LanguageSizes,
    schedule: Schedule,
    facts: Sequence[Fact],
    text: Sequence[dict[str, str]],
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and base language model from scratch; resumes after a kill."""
    rng = random.Random(run.step_seed("language", -1))  # noqa: S311
    chats, captions = draw_text(rng, facts, text, sizes)
    tokenizer = _load_or_train_tokenizer(run.work_dir / "tokenizer", chats, captions, sizes)
    texts = [encode_chat(tokenizer, turns)[0] for turns in chats]
    texts += [[tokenizer.bos_token_id, *_encode(tokenizer, c + END)] for c in captions]
    rows = [Row(ids, [True] * len(ids)) for ids in texts if len(ids) <= sizes.n_context // 2]
    batches = make_batches(rows, tokenizer.pad_token_id, sizes.batch_tokens)
    run.say(f"language: {sum(len(r.ids) for r in rows)} tokens in {len(batches)} batches")
    torch.manual_seed(run.step_seed("language", -2))
    model = build_language_model(sizes, tokenizer)

    def step_loss(rng: random.Random, _share: float) -> Tensor:
        batch = rng.choice(batches)
        with torch.autocast("cpu", torch.bfloat16):  # padded on the right: no mask is needed
            loss: Tensor = model(input_ids=batch.ids, labels=batch.labels).loss
        return loss

    run_stage(
        run,
        "language",
        {"llm": model.train()},
        schedule,
        step_loss,
        lr_scale=lambda name: 3.0 if "embed_tokens" in name else 1.0,
        report_every=500,
    )
    return model.eval(), tokenizer


def _load_or_train_tokenizer(
    folder: Path, chats: Sequence[Sequence[Turn]], captions: Sequence[str], sizes: LanguageSizes
) -> PreTrainedTokenizerFast:
    if (folder / "done.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    lines = [text for turns in chats for turn in turns for text in turn] + list(captions)
    tokenizer = train_tokenizer(lines, sizes.vocab_size)
    tokenizer.save_pretrained(folder)
    (folder / "done.json").write_text(json.dumps({"lines": len(lines)}), encoding="utf-8")
    return tokenizer
