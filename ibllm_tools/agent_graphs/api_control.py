"""`api_control`: APIs that nobody taught the model, called within a person's limits (figure 12).

```
question, media -> offer (the fewest tools) -> model ⇄ approval ⇄ tools -> answer
tools: OpenAPI documents (openapi), MCP servers (mcp_tools), plain Python functions
```
Which hosts may be called is the person's list; the model fills in arguments and never an address.
Calls that change something wait for a human; how many there may be in one run is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool
from langchain_core.tools import tool as as_tool

from ibllm_tools.agent_graphs.brain import Brain
from ibllm_tools.agent_graphs.mcp_tools import McpServer, mcp_tools
from ibllm_tools.agent_graphs.openapi import READS, ApiDocument, calls_policy, openapi_tools
from ibllm_tools.agent_graphs.picking import FewestTools
from ibllm_tools.agent_graphs.state import open_shelf
from ibllm_tools.agent_graphs.telling import TellingTools
from ibllm_tools.errors import ConfigurationError, IbllmError
from ibllm_tools.media_agent import SYSTEM_PROMPT

if TYPE_CHECKING:
    import os

    from langchain.agents.middleware.types import AgentMiddleware, ToolCallRequest
    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.media import MediaPolicy

CHANGES, ALL, NONE = "changes", "all", "none"
N_OFFERED_POCKET, N_OFFERED = 2, 16
MAX_CALLS = 6
DECISIONS = ["approve", "edit", "reject"]


def create_graph(
    model: str | BaseChatModel | None = None,
    *,
    detector: Detector | str | bool | None = None,
    recognizer: Recognizer | str | bool | None = None,
    attachments_dir: str | os.PathLike[str] | None = None,
    media_policy: MediaPolicy | None = None,
    checkpointer: Checkpointer = None,
    apis: Sequence[ApiDocument | str | Path | Mapping[str, Any]] = (),
    mcp_servers: Sequence[McpServer] = (),
    tools: Sequence[BaseTool | Callable[..., Any]] = (),
    allowed_hosts: Sequence[str] = (),
    ask_before: str | Sequence[str] = CHANGES,
    max_calls: int = MAX_CALLS,
    max_offered: int | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make the graph.

    Args:
        model: Calls the tools; pocket by default. One without senses perceives through pocket.
        detector: Brings `detect_objects`; none by default.
        recognizer: Brings `transcribe_speech`; none by default.
        attachments_dir: Where the bytes of attachments go.
        media_policy: What messages may bring.
        checkpointer: Keeps threads; without one (or a server that has one) a run ends where a
            human is asked.
        apis: OpenAPI documents: files, texts, addresses, or `ApiDocument` with headers.
        mcp_servers: MCP servers: addresses, scripts, or commands. Their tools may do what the
            server may.
        tools: Python functions and LangChain tools. They change something unless their metadata
            say `{"reads": True}`.
        allowed_hosts: Hosts that OpenAPI documents may lead to, such as "api.example.com" or
            "127.0.0.1:8000"; none by default.
        ask_before: A human is asked before these tools: "changes" (all that do not only read, as
            their method, metadata or server say), "all", "none", or names.
        max_calls: Most tool calls of one run.
        max_offered: Most tools that the model is offered at once; by default 2 for pocket, which
            is small, and 16 for others.

    Raises:
        ConfigurationError: A document or server cannot be used, a host is not allowed, two tools
            have one name, or `ask_before` names no tool.
        MissingExtraError: A package for OpenAPI or MCP is missing.
    """
    from langchain.agents import create_agent

    shelf = open_shelf(attachments_dir, media_policy)
    brain = Brain(model, shelf)
    offered = _tools(apis, mcp_servers, tools, allowed_hosts)
    asked = _asked_before(offered, ask_before)
    perceiving = _perceiving(brain, detector, recognizer, shelf.policy)
    n_most = max_offered or (N_OFFERED_POCKET if brain.is_own else N_OFFERED)
    around = _around(shelf.files.folder, shelf.policy, max_calls)
    fewest = FewestTools(n_most, always=[tool.name for tool in perceiving])
    graph: CompiledStateGraph[Any, Any, Any, Any] = create_agent(
        brain.model,
        [*perceiving, *offered],
        system_prompt=None if brain.is_own else SYSTEM_PROMPT,
        middleware=[*around, fewest, *_approval(asked)],
        checkpointer=checkpointer,
        name="api_control",
    )
    return graph


def _tools(
    apis: Sequence[ApiDocument | str | Path | Mapping[str, Any]],
    mcp_servers: Sequence[McpServer],
    tools: Sequence[BaseTool | Callable[..., Any]],
    allowed_hosts: Sequence[str],
) -> list[BaseTool]:
    """All tools, each under a name of its own."""
    policy = calls_policy(allowed_hosts)
    found: list[BaseTool] = []
    for api in apis:
        found += openapi_tools(api if isinstance(api, ApiDocument) else ApiDocument(api), policy)
    for server in mcp_servers:
        found += mcp_tools(server)
    found += [given if isinstance(given, BaseTool) else as_tool(given) for given in tools]
    names = [tool.name for tool in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigurationError(
            f"found two tools named {', '.join(doubled)}; expected one of each name; leave one "
            "out by ApiDocument(operations=[...])"
        )
    return found


def _asked_before(tools: Sequence[BaseTool], ask_before: str | Sequence[str]) -> list[str]:
    names = [tool.name for tool in tools]
    if ask_before == ALL:
        return names
    if ask_before == CHANGES:
        return [tool.name for tool in tools if not (tool.metadata or {}).get(READS)]
    if ask_before == NONE:
        return []
    wanted = [ask_before] if isinstance(ask_before, str) else list(ask_before)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigurationError(
            f"ask_before: found {', '.join(unknown)}; expected {CHANGES}, {ALL}, {NONE}, or names "
            f"among {', '.join(names) or 'no tools'}"
        )
    return wanted


def _perceiving(
    brain: Brain,
    detector: Detector | str | bool | None,
    recognizer: Recognizer | str | bool | None,
    policy: MediaPolicy,
) -> list[BaseTool]:
    """Perception as tools: for a model without senses, and where experts are wanted."""
    from ibllm_tools.toolkit import ImageBindLLMToolkit

    kit = ImageBindLLMToolkit(
        chat=brain.perceiver,
        detector=detector or False,
        recognizer=recognizer or False,
        media_policy=policy,
    )
    wanted = {"detect_objects", "transcribe_speech"} | (set() if brain.has_senses else {"perceive"})
    return [tool for tool in kit.get_tools() if tool.name in wanted]


def _around(
    folder: Path, policy: MediaPolicy, max_calls: int
) -> list[AgentMiddleware[Any, Any, Any]]:
    from langchain.agents.middleware import (
        ModelCallLimitMiddleware,
        ToolCallLimitMiddleware,
        ToolErrorMiddleware,
    )

    from ibllm_tools.attachments import AttachmentMiddleware
    from ibllm_tools.toolkit.offering import FittingTools

    return [
        AttachmentMiddleware(folder, media_policy=policy),
        FittingTools(),
        TellingTools(),
        ToolErrorMiddleware(_on_error),
        ModelCallLimitMiddleware(run_limit=2 * max_calls + 2),
        ToolCallLimitMiddleware(run_limit=max_calls),
    ]


def _on_error(error: Exception, request: ToolCallRequest) -> str:
    """A tool that fails is an answer; what a foreign error says stays here."""
    name = request.tool_call["name"]
    reason = str(error) if isinstance(error, IbllmError) else type(error).__name__
    return f"{name} failed: {reason}"


def _approval(names: Sequence[str]) -> list[AgentMiddleware[Any, Any, Any]]:
    from langchain.agents.middleware import HumanInTheLoopMiddleware

    if not names:
        return []
    wanted: dict[str, Any] = {name: {"allowed_decisions": DECISIONS} for name in names}
    return [HumanInTheLoopMiddleware(interrupt_on=wanted)]
