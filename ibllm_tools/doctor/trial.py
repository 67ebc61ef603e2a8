"""`try_out`: asks a model about a picture that ships, so that nothing is left to belief."""

from __future__ import annotations

import sys
import time
from typing import Any

from ibllm_tools.demo import MEDIA_FOLDER
from ibllm_tools.media import Media

QUESTION = "What is this?"
PICTURE = "dog.jpg"


def try_out(model: str = "pocket") -> tuple[dict[str, Any], list[str]]:
    """Ask a question about a picture, twice: the first answer loads the weights.

    Args:
        model: "pocket", a model folder, or a hub id, which is then fetched.

    Returns:
        What came of it, and problems: empty if the model answered.
    """
    from langchain_core.messages import HumanMessage

    from ibllm_tools.chat_models import ChatImageBindLLM

    try:
        chat = ChatImageBindLLM(model=model, max_tokens=32)
        photo = Media.from_path(MEDIA_FOLDER / PICTURE)
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            answer = chat.invoke([HumanMessage([QUESTION, photo])])
            seconds.append(round(time.perf_counter() - started, 3))
    except Exception as error:  # noqa: BLE001 - whatever it is, the model cannot answer
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"question": QUESTION, "picture": PICTURE}, [f"{model} cannot answer: {reason}"]
    trial = {
        "question": QUESTION,
        "picture": PICTURE,
        "answer": answer.text,
        "first_s": seconds[0],
        "second_s": seconds[1],
        "peak_bytes": _peak_bytes(),
    }
    return trial, [] if answer.text.strip() else [f"{model} answered nothing; fetch it again"]


def _peak_bytes() -> int | None:
    """The most memory that this process held; None where it cannot be told."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
