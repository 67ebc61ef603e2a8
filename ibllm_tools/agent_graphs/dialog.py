"""`dialog`: many turns over changing media, by `create_media_agent`.

A photo, then a recording, then a question about both: every medium becomes an attachment with an
id that later turns can name; the thread lives in the checkpointer of whoever serves the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibllm_tools.agent_graphs.brain import open_model
from ibllm_tools.agent_graphs.telling import TellingTools
from ibllm_tools.media_agent import create_media_agent

if TYPE_CHECKING:
    import os

    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.media import MediaPolicy


def create_graph(
    model: str | BaseChatModel | None = None,
    *,
    detector: Detector | str | bool | None = None,
    recognizer: Recognizer | str | bool | None = None,
    attachments_dir: str | os.PathLike[str] | None = None,
    media_policy: MediaPolicy | None = None,
    checkpointer: Checkpointer = None,
    **options: Any,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make the graph.

    Args:
        model: Answers and calls tools; pocket by default.
        detector: For the tool `detect_objects`; see `create_media_agent`.
        recognizer: For the tool `transcribe_speech`.
        attachments_dir: Where the bytes of attachments go.
        media_policy: What messages may bring.
        checkpointer: Keeps threads.
        **options: Further ones of `create_media_agent`, such as `interrupt_on`.
    """
    return create_media_agent(
        open_model(model),
        detector=detector,
        recognizer=recognizer,
        attachments_dir=attachments_dir,
        media_policy=media_policy,
        checkpointer=checkpointer,
        middleware=[TellingTools()],
        name="dialog",
        **options,
    )
