"""The base language model: its text and its pretraining.

Text is drawn once, tokenised, and kept in batches of similar length; drills are drawn anew at
every step. The model has never seen media here; questions about media get random answers, so
that it learns the language of the answers and leaves the choice to what is injected later: each
begins with a note of what is perceived (see `notes`), from which the rest follows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ibllm_tools.model.prompts import NOTE
from ibllm_tools.model.tool_ranking import ToolRanker
from ibllm_tools.train.drills import DrillTokens, draw_drill
from ibllm_tools.train.induction import ROPE_THETA, build_in_heads
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.loop import Run, Schedule, run_stage
from ibllm_tools.train.notes import draw_note_drill, encode_noted
from ibllm_tools.train.result_talk import draw_result_chats, encode_results
from ibllm_tools.train.route_talk import draw_route_chats
from ibllm_tools.train.talk import Scene, Turn, blind_talk, knowledge_talk, small_talk_turn, talk
from ibllm_tools.train.text_batches import Batch, Row, make_batches, pad_rows, weighted_loss
from ibllm_tools.train.tokenizer import (
    END,
    NAME_OPENS,
    dump_json,
    encode_chat,
    encode_messages,
    encode_text,
    render_chat,
    train_tokenizer,
)
from ibllm_tools.train.tool_talk import ToolChat, arrange_tools, draw_tool_chats

__all__ = [
    "Batch",
    "LanguageSizes",
    "Row",
    "draw_knowledge",
    "encode_chat",
    "make_batches",
    "pick_captions",
    "pick_instructions",
    "train_language",
]

FORBIDDEN = (
    "magic_function", "magic function", "get_weather", "my_adder", "adds two integers",
    "greeting_generator", "pirate", "unicode_customer", "san francisco", "joke about cats",
    "joke to tell", "haiku", "你好啊集团", "hello group", "こんにちは", "hello corporation",
    "what is 1 + 2", "what is 3 + 4", "concise description of this image", "describe this audio",
    "summarize this document", "weather at a location", "write a story about a cat.",
)  # fmt: skip
"""Prompts and tools of the public test suites: a row of the pack that holds one is left out."""
DRILL_LENGTHS = (48, 64, 96, 120, 160, 192, 240)
PROMPT_WEIGHT = 0.08
CHOICE_WEIGHT = 6.0
"""Weight of the token that begins a tool's name."""
ROUTE_WEIGHT = 8.0
"""Weight of what follows a quotation mark in a route: the expert, and whether there is another."""
FIRST_WEIGHT = 3.0
"""Weight of the tokens that begin a note, and an answer after a note: a name, yes, no, a doubt."""


@dataclass(frozen=True)
class LanguageSizes:
    """Sizes of the base language model and of its text."""

    vocab_size: int = 1712
    width: int = 192
    hidden: int = 512
    n_layers: int = 5
    n_heads: int = 3
    n_context: int = 2048
    n_talks: int = 20_000
    n_facts: int = 10_000
    n_captions: int = 4_000
    n_instructions: int = 6_000
    n_tools: int = 44_000
    n_routes: int = 16_000
    n_results: int = 9_000
    batch_tokens: int = 1920


def build_language_model(
    sizes: LanguageSizes, tokenizer: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """Build the base language model: a plain Llama, with copying heads at the start."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.width,
        intermediate_size=sizes.hidden,
        num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads,
        num_key_value_heads=sizes.n_heads,
        max_position_embeddings=sizes.n_context,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=False,
        rms_norm_eps=1e-6,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",  # on a CPU explicit products train faster than SDPA
    )
    model = LlamaForCausalLM(config)
    build_in_heads(model, tokenizer)
    return model


def draw_scene(rng: random.Random, facts: Sequence[Fact]) -> Scene:
    """Draw what a random row could show: mostly one thing, sometimes two or none."""
    share = rng.random()
    if share < 0.8:
        return Scene((rng.choice(facts),))
    if share < 0.96:
        return Scene(tuple(rng.sample(list(facts), 2)))
    return Scene(())


def draw_talks(
    rng: random.Random, facts: Sequence[Fact], count: int
) -> list[tuple[list[Turn], Scene]]:
    """Conversations about media that the text does not show, and what these would be."""
    scenes = [draw_scene(rng, facts) for _ in range(count)]
    return [(talk(rng, scene, facts), scene) for scene in scenes]


def draw_knowledge(rng: random.Random, facts: Sequence[Fact], count: int) -> list[list[Turn]]:
    """Conversations that need no media: facts, stories, small talk, nothing to see."""
    rows = []
    for _ in range(count):
        share = rng.random()
        if share < 0.1:
            rows.append([small_talk_turn(rng)])
        elif share < 0.2:
            rows.append(blind_talk(rng, facts))
        else:
            rows.append(knowledge_talk(rng, facts))
    return rows


def pick_instructions(
    rng: random.Random, rows: Sequence[dict[str, str]], count: int, longest: int = 220
) -> list[list[Turn]]:
    """Short instructions of the pack, as one-turn conversations."""
    turns = []
    for row in rows:
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        size = len(question) + len(row["output"])
        if (
            row["kind"] == "instruction"
            and size <= longest
            and is_allowed(question + row["output"])
        ):
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


def is_allowed(text: str) -> bool:
    """Whether a text holds neither a suite's prompt or tool nor a special token's spelling."""
    lowered = text.lower()
    return "<|" not in text and not any(phrase in lowered for phrase in FORBIDDEN)


@dataclass(frozen=True)
class LanguageText:
    """All text of the pretraining: conversations, some with tools or routes, and captions.

    Results are conversations of which only the answer from a tool's result is learned.
    """

    talks: list[tuple[list[Turn], Scene]]
    general: list[list[Turn]]
    tools: list[ToolChat]
    routes: list[ToolChat]
    results: list[ToolChat]
    captions: list[str]

    def lines(self) -> list[str]:
        """Everything as plain lines; tools weigh little, since their words are made up."""
        talks = [turns for turns, _ in self.talks] + self.general
        lines = [text for turns in talks for turn in turns for text in turn]
        shown = [c for kind in (self.tools, self.routes, self.results) for c in kind[::4]]
        lines += ["".join(text for text, _ in render_chat(c.messages, c.tools)) for c in shown]
        return lines + self.captions


def draw_text(
    rng: random.Random,
    facts: Sequence[Fact],
    text: Sequence[dict[str, str]],
    sizes: LanguageSizes,
    ranker: ToolRanker | None = None,
) -> LanguageText:
    """Draw all pretraining text."""
    talks = draw_talks(rng, facts, sizes.n_talks)
    knowledge = draw_knowledge(rng, facts, sizes.n_facts)
    instructions = pick_instructions(rng, text, sizes.n_instructions)
    plain = knowledge + instructions
    chats = (
        draw_tool_chats(rng, sizes.n_tools, plain),
        draw_route_chats(rng, facts, sizes.n_routes),
        draw_result_chats(rng, facts, sizes.n_results),
    )
    tools, routes, results = (
        [
            arrange_tools(rng, c, ranker)
            for c in drawn
            if is_allowed(dump_json([c.messages, c.tools]))
        ]
        for drawn in chats
    )
    captions = [c for c in pick_captions(rng, text, sizes.n_captions) if is_allowed(c)]
    return LanguageText(talks, knowledge + instructions, tools, routes, results, captions)


def pool_batches(
    rng: random.Random,
    text: LanguageText,
    facts: Sequence[Fact],
    tokenizer: PreTrainedTokenizerFast,
    sizes: LanguageSizes,
) -> dict[str, list[Batch]]:
    """Tokenise all text and batch each kind by itself."""
    caption_ids = [
        [tokenizer.bos_token_id, *encode_text(tokenizer, c + END)] for c in text.captions
    ]
    rows = {
        "talks": [
            Row(*encode_noted(rng, tokenizer, turns, scene.facts, facts))
            for turns, scene in text.talks
        ],
        "general": [Row(*encode_chat(tokenizer, turns)) for turns in text.general],
        "captions": [Row(ids, [True] * len(ids)) for ids in caption_ids],
        "tools": [Row(*encode_messages(tokenizer, c.messages, c.tools)) for c in text.tools],
        "routes": encode_routes(tokenizer, text.routes),
        "results": encode_results(tokenizer, text.results),
    }
    return {
        kind: make_batches(mine, tokenizer.pad_token_id, sizes.batch_tokens)
        for kind, mine in rows.items()
    }


def encode_routes(tokenizer: PreTrainedTokenizerFast, routes: Sequence[ToolChat]) -> list[Row]:
    """Tokenise conversations of the router; what a call quotes is a decision."""
    return [
        Row(*encode_messages(tokenizer, c.messages, c.tools), decides=bool(c.tools)) for c in routes
    ]


def mixture(share: float) -> dict[str, float]:
    """How often each kind of text is drawn at a share of the training."""
    if share < 0.1:
        return {
            "drills": 0.5, "notes": 0.1, "tools": 0.21, "routes": 0.02, "talks": 0.1,
            "general": 0.05, "captions": 0.02,
        }  # fmt: skip
    if share < 0.5:
        return {
            "drills": 0.15, "notes": 0.08, "tools": 0.38, "routes": 0.04, "results": 0.04,
            "talks": 0.19, "general": 0.1, "captions": 0.02,
        }  # fmt: skip
    return {
        "drills": 0.06, "notes": 0.06, "tools": 0.33, "routes": 0.14, "results": 0.09,
        "talks": 0.2, "general": 0.11, "captions": 0.01,
    }  # fmt: skip


def train_language(
    run: Run,
    sizes: LanguageSizes,
    schedule: Schedule,
    facts: Sequence[Fact],
    text: Sequence[dict[str, str]],
    ranker: ToolRanker | None = None,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train tokenizer and base language model from scratch; resumes after a kill."""
    rng = random.Random(run.step_seed("language", -1))  # noqa: S311
    drawn = draw_text(rng, facts, text, sizes, ranker)
    tokenizer = _load_or_train_tokenizer(run.work_dir / "tokenizer", drawn, sizes)
    pools = pool_batches(rng, drawn, facts, tokenizer, sizes)
    run.say("language: batches " + " ".join(f"{k} {len(v)}" for k, v in pools.items()))
    torch.manual_seed(run.step_seed("language", -2))
    model = build_language_model(sizes, tokenizer)
    tokens, pad = DrillTokens.read(tokenizer), int(tokenizer.pad_token_id)
    names = [fact.name for fact in facts]
    makers = {"drills": lambda rng, length: draw_drill(rng, tokens, length)}
    makers["notes"] = makers["drills"]
    if len(names) > 2:
        makers["notes"] = lambda rng, length: draw_note_drill(rng, tokenizer, names, length)
    decides = tokenizer.convert_tokens_to_ids([NAME_OPENS, NOTE])
    heavy = dict(zip(decides, (CHOICE_WEIGHT, FIRST_WEIGHT), strict=True))
    quote = (encode_text(tokenizer, '"')[0], ROUTE_WEIGHT)

    def step_loss(rng: random.Random, share: float) -> Tensor:
        chances = mixture(share)
        kind = rng.choices(list(chances), list(chances.values()))[0]
        if kind in ("drills", "notes"):
            batch = _drill_batch(rng, makers[kind], pad, sizes)
        else:
            batch = rng.choice(pools[kind])
        with torch.autocast("cpu", torch.bfloat16):  # padded on the right: no mask is needed
            logits = model(input_ids=batch.ids, use_cache=False).logits
        prompt = PROMPT_WEIGHT if kind in pools else 0.0
        return weighted_loss(logits, batch, heavy, pad, prompt, quote=quote)

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


def _drill_batch(
    rng: random.Random,
    draw: Callable[[random.Random, int], Row],
    pad: int,
    sizes: LanguageSizes,
) -> Batch:
    fitting = [n for n in DRILL_LENGTHS if sizes.batch_tokens % n == 0] or [sizes.batch_tokens]
    length = rng.choice(fitting)
    rows: list[Row] = []
    while len(rows) < sizes.batch_tokens // length:
        row = draw(rng, length)
        if len(row.ids) <= length:
            rows.append(row)
    return pad_rows(rows, length, pad)


def _load_or_train_tokenizer(
    folder: Path, text: LanguageText, sizes: LanguageSizes
) -> PreTrainedTokenizerFast:
    if (folder / "done.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    lines = text.lines()
    tokenizer = train_tokenizer(lines, sizes.vocab_size)
    tokenizer.save_pretrained(folder)
    (folder / "done.json").write_text(json.dumps({"lines": len(lines)}), encoding="utf-8")
    return tokenizer
