"""What a grammar costs: tokens per second of the engine with and without one.

Run: `pytest tests/benchmarks/test_grammar_cost.py -m benchmark -s -p no:randomly`.
Both sides take turns in one process, on one thread, and the processor's time is counted; the best
of the turns counts. The answers of both sides have the same number of tokens.
"""

import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_tools.decoding import Sampling
from ibllm_tools.engine import Engine, open_engine
from ibllm_tools.grammar import compile_calls, compile_json
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.train.tokenizer import train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from grammar_samples import TOOLS, tool

N_TOKENS, JOINT = 64, 256
TURNS = {256: 12, 1024: 2}
WANTED = {256: 1.15, 1024: 1.03}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "mood": {"enum": ["happy", "sad", "tired"]},
    },
    "required": ["name", "age", "mood"],
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 2, "maxItems": 40}
LETTER = {"type": "object", "properties": {"text": {"type": "string", "minLength": 1}}}
NOTE = tool("note", {**LETTER, "required": ["text"]})


def random_engine(width):
    torch.manual_seed(0)
    sources = sorted((Path(__file__).parents[2] / "ibllm_tools").rglob("*.py"))
    lines = [line for path in sources for line in path.read_text("utf-8").splitlines()]
    tokenizer = train_tokenizer(lines, 4096)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096,
            hidden_size=width,
            intermediate_size=width * 11 // 4,
            num_hidden_layers=8,
            num_attention_heads=width // 64,
            eos_token_id=None,
            pad_token_id=0,
        )
    ).eval()
    model = ImageBindLLM.from_llm(llm, joint_dim=JOINT).eval()
    return Engine(model, ImageBindLLMProcessor(tokenizer))


def grammars(engine):
    """One kind of answer for each row: text in JSON, records, and calls that are required."""
    end_ids = engine.end_ids
    kinds = [
        compile_json(PEOPLE, engine.tokenizer, end_ids=end_ids),
        compile_json({**LETTER, "required": ["text"]}, engine.tokenizer, end_ids=end_ids),
        compile_calls([NOTE, *TOOLS], engine.tokenizer, choice="required", end_ids=end_ids),
    ]
    return (kinds * 6)[:16]


def write(engine, constraints, lengths):
    """Write answers at once; return the processor's seconds per token, and each one's tokens."""
    made = [0] * len(lengths)

    def answer(row):
        sampling = Sampling(max_tokens=lengths[row], temperature=1.0, seed=row)
        messages = [{"role": "user", "content": f"Write number {row}, please."}]
        [piece] = engine.stream(
            messages, sampling=sampling, constraint=constraints[row], whole=True
        )
        made[row] = piece.n_output_tokens

    threads = [threading.Thread(target=answer, args=(row,)) for row in range(len(lengths))]
    started = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - started) / sum(made), made


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("width", [256, 1024])
@pytest.mark.parametrize("n_rows", [1, 16])
def test_a_grammar_costs_little(width, n_rows):
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    engine = open_engine() if width == 256 else random_engine(width)
    ends, constrained, free = engine.end_ids, grammars(engine), [None] * 16
    _, lengths = write(engine, constrained, [N_TOKENS] * n_rows)
    best = {"free": float("inf"), "grammar": float("inf")}
    try:
        for turn in range(TURNS[width]):
            for name in ("free", "grammar") if turn % 2 else ("grammar", "free"):
                # A free answer goes on to as many tokens as the constrained one has.
                engine.end_ids = frozenset() if name == "free" else ends
                budgets = lengths if name == "free" else [N_TOKENS] * n_rows
                seconds, made = write(engine, free if name == "free" else constrained, budgets)
                assert made == lengths
                best[name] = min(best[name], seconds)
    finally:
        engine.end_ids = ends
        torch.set_num_threads(n_threads)
    ratio = best["grammar"] / best["free"]
    print(
        f"\n| {width} | {n_rows} | {sum(lengths)} | {1 / best['free']:.0f} "
        f"| {1 / best['grammar']:.0f} | {ratio:.3f} |"
    )
    assert ratio <= WANTED[width]
