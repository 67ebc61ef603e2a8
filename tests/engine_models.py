"""Engines on tiny random models, and the plain loop that says what they must answer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from test_model import bare_llm
from tiny_model import JOINT, byte_tokenizer, tiny_encoder

from ibllm_tools.cache import VisualCache
from ibllm_tools.decoding import AnswerText, Sampler, Sampling
from ibllm_tools.engine import Engine
from ibllm_tools.media import Text
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.preprocess import MediaBatch, PreprocessConfig

LETTERS = "abcdefghijklmnopqrstuvwxyz 狗海"


def tiny_engine(kind="Llama", *, form=None, dtype=torch.float32, **options):
    """An engine whose answers are letters and never end by themselves."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    encoder = tiny_encoder()
    model = ImageBindLLM.from_llm(
        bare_llm(kind), encoder, VisualCache(torch.randn(20, JOINT)), **(form or {})
    )
    letters = tokenizer.encode(LETTERS, add_special_tokens=False)
    silent = [token for token in range(len(tokenizer)) if token not in letters]
    with torch.no_grad():
        for parameter in (*model.bind_network.parameters(), model.prefix_query):
            if parameter is not None and parameter.ndim > 1:
                parameter.normal_(std=0.3)
        head = torch.nn.Linear(32, 260, bias=False)
        head.weight.normal_(std=1.0)
        head.weight[silent] = 0
        model.llm.lm_head = head
        model.gates.fill_(0.1)
        for attention in model.shape.attentions:  # answers depend on every token and medium
            attention.q_proj.weight.mul_(3)
            attention.k_proj.weight.mul_(3)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.llm.config.max_position_embeddings = 512
    sizes = PreprocessConfig(
        image_px=32, depth_px=32, thermal_px=32, n_points=256, text_context=16, text_merges=100
    )
    model = model.to(dtype).eval()
    return Engine(model, ImageBindLLMProcessor(tokenizer, sizes), **options)


def alone(engine, messages, media=(), sampling=None):
    """The text of an answer by the plainest loop: one row, transformers' own cache, no engine."""
    sampling = sampling or Sampling()
    model, ids = engine.model, engine.prompt_ids(messages)
    batch = MediaBatch.collate([media], engine.processor.preprocess).to(dtype=model.dtype)
    sampler, text = Sampler(sampling), AnswerText(engine.tokenizer, sampling.stop)
    shown, past, following = [], None, ids
    with torch.inference_mode():
        injection = model.injection(*model.sense(batch))
        for _ in range(min(sampling.max_tokens, engine.max_context - len(ids))):
            out = model(
                torch.tensor([following]), injection=injection, past_key_values=past, use_cache=True
            )
            past, token = out.past_key_values, sampler.choose(out.logits[0, -1])
            if token in engine.end_ids:
                break
            shown.append(text.push(token))
            if text.stopped:
                break
            following = [token]
    return "".join(shown) + text.finish()


def user(text):
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def answer(engine, *args, **options):
    """All text of an answer, and how it ended."""
    pieces = list(engine.stream(*args, **options))
    return "".join(piece.text for piece in pieces), pieces[-1].finish


def together(n, work):
    """Run `work(i)` in n threads that start at once; the results, in order."""
    gate = threading.Barrier(n)

    def run(index):
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


def saying(text, weight=1.0):
    """A medium that differs for every text."""
    return Text(text=text, weight=weight)
