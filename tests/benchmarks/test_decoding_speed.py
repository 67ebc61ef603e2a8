"""Decoding with injection against the same bare LLM's `generate`.

Run: `pytest tests/benchmarks/test_decoding_speed.py -m benchmark -s -p no:randomly`.
Both sides take turns in one process, on one thread, and the processor's time is counted, so that
a busy machine disturbs little and both alike; the best of the turns counts.
"""

import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_tools.model import ImageBindLLM

N_TOKENS, PROMPT, VOCABULARY, JOINT = 48, 32, 4096, 256
TURNS = {256: 14, 1024: 6}
LAYERS = {256: 6, 1024: 8}
WANTED = 0.97


def bare_llm(width):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=width * 11 // 4,
            num_hidden_layers=LAYERS[width],
            num_attention_heads=width // 64,
            eos_token_id=None,
            pad_token_id=0,
        )
    ).eval()


def model_of(width, *, tuned):
    model = ImageBindLLM.from_llm(bare_llm(width), joint_dim=JOINT).eval()
    model.gates.data.fill_(0.5)
    if tuned:
        model.add_deltas()
        model.merge()
    return model


def tokens_per_s(generate, ids):
    started = time.process_time()
    generate(ids, max_new_tokens=N_TOKENS, do_sample=False)
    return len(ids) * N_TOKENS / (time.process_time() - started)


@pytest.mark.benchmark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("width", [256, 1024])
@pytest.mark.parametrize("n_rows", [1, 8])
@pytest.mark.parametrize("tuned", [False, True], ids=["untuned", "merged"])
def test_injection_costs_little(width, n_rows, tuned):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bare, model = bare_llm(width), model_of(width, tuned=tuned)
        ids = torch.randint(1, VOCABULARY, (n_rows, PROMPT))
        features = torch.randn(n_rows, JOINT)

        def sensing(ids, **options):
            return model.generate(ids, features=features, **options)

        best = {"bare": 0.0, "sensing": 0.0}
        for turn in range(TURNS[width]):
            sides = [("bare", bare.generate), ("sensing", sensing)]
            for name, generate in sides if turn % 2 else sides[::-1]:
                best[name] = max(best[name], tokens_per_s(generate, ids))
    finally:
        torch.set_num_threads(threads)
    ratio = best["sensing"] / best["bare"]
    kind = "LoRA merged" if tuned else "no LoRA"
    print(
        f"\n| {width} x {LAYERS[width]} | {n_rows} | {kind} | {best['bare']:.0f} "
        f"| {best['sensing']:.0f} | {ratio:.3f} |"
    )
    assert ratio >= WANTED
