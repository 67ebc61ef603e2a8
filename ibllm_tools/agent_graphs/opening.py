"""From an agent's name to its graph."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

NAMES = ("api_control", "detection", "dialog", "modality_experts", "perception")
"""The agents; each is a module of this package."""


def open_graph(name: str, **settings: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make the graph of an agent; its weights are read in its first run.

    Args:
        name: One of `NAMES`.
        **settings: Of its module's `create_graph`; all take `model`, `detector`, `recognizer`,
            `attachments_dir`, `media_policy` and `checkpointer`.

    Raises:
        ConfigurationError: There is no such agent.
    """
    if name not in NAMES:
        raise ConfigurationError(
            f"found the agent name {name!r}; expected one of {', '.join(NAMES)}; see "
            "`ibllm agent --help`"
        )
    module = import_module(f"ibllm_tools.agent_graphs.{name}")
    graph: CompiledStateGraph[Any, Any, Any, Any] = module.create_graph(**settings)
    return graph
