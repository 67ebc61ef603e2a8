"""Section `speed`: size of the folder, load time, and decoding on two cores, one request at a time.

Times are taken in a process of its own, after its imports, with two threads:
`python -m ibllm_tools.evaluate.speed MODEL` prints them as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from ibllm_tools.evaluate.results import Measure, Section, ratio
from ibllm_tools.evaluate.targets import target_of

if TYPE_CHECKING:
    from ibllm_tools.evaluate.session import Session

N_CORES = 2
N_ANSWERS = 12
MIN_TOKENS = 8
MB = 1e6
QUESTION = "Tell me a short story about it."


def measure_speed(session: Session) -> Section:
    """Measure size and times of the session's model."""
    section = Section("speed", "Size and speed")
    section.measures.append(_size(session.ask.model))
    count = max(2, session.capped(N_ANSWERS))
    command = [sys.executable, "-m", "ibllm_tools.evaluate.speed", session.ask.model, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        section.notes.append(f"times could not be taken: {last}")
        return section
    times = json.loads(done.stdout.strip().splitlines()[-1])
    section.details["times"] = times
    section.measures += _figures(times)
    return section


def _size(model: str) -> Measure:
    from ibllm_tools.checkpoints import find_folder

    folder = find_folder(model)
    if folder is None:
        return Measure("size", "folder", 0, None, unit="MB", note="a hub id has no local folder")
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    size = n_bytes / MB
    return Measure("size", "folder", 1, size, target=target_of("speed", "size"), unit="MB")


def _figures(times: dict[str, Any]) -> list[Measure]:
    answers = times["answers"]
    tokens = [a["tokens"] - 1 for a in answers if a["tokens"] >= MIN_TOKENS]
    seconds = [a["total_s"] - a["first_s"] for a in answers if a["tokens"] >= MIN_TOKENS]
    load = Measure(
        "load",
        "load after imports",
        1,
        times["load_s"],
        target=target_of("speed", "load"),
        unit="s",
    )
    decoding = ratio(
        "decoding",
        f"decoding, {times['threads']} threads, batch 1",
        tokens,
        seconds,
        unit="tokens/s",
        target=target_of("speed", "decoding"),
        note="" if tokens else "answers are too short to time",
    )
    first = [a["first_s"] for a in answers]
    return [load, decoding, ratio("first", "time to first token, with a photo", first, unit="s")]


def take_times(model: str, count: int) -> dict[str, Any]:
    """Load a model and ask it, timing both; call it in a fresh process.

    Returns:
        `load_s`, `threads`, and for each of the `answers` `first_s`, `total_s` and `tokens`.
    """
    import time

    import torch
    from transformers import LlamaForCausalLM  # noqa: F401 - imports are not part of loading

    import ibllm_tools.encoder
    import ibllm_tools.model  # noqa: F401
    from ibllm_tools.chat_models import ChatImageBindLLM

    torch.set_num_threads(N_CORES)
    chat = ChatImageBindLLM(model=model, max_tokens=64)
    started = time.perf_counter()
    chat.get_token_ids("hello")
    load_s = time.perf_counter() - started
    content = [QUESTION, _photo()]
    answers = [_time_answer(chat, content) for _ in range(count + 1)][1:]
    return {"load_s": load_s, "threads": torch.get_num_threads(), "answers": answers}


def _photo() -> Any:
    """A grey photo: an answer's speed does not depend on what is shown."""
    import numpy as np

    from ibllm_tools.media import Media

    pixels = np.full((64, 64, 3), 128, np.uint8)
    return Media.from_array(pixels, "image")


def _time_answer(chat: Any, content: list[Any]) -> dict[str, float]:
    import time

    from langchain_core.messages import HumanMessage

    started, first, tokens = time.perf_counter(), 0.0, 0
    for chunk in chat.stream([HumanMessage(content)]):
        first = first or time.perf_counter() - started
        tokens += chunk.usage_metadata["output_tokens"] if chunk.usage_metadata else 0
    return {"first_s": first, "total_s": time.perf_counter() - started, "tokens": tokens}


if __name__ == "__main__":
    print(json.dumps(take_times(sys.argv[1], int(sys.argv[2]))))
