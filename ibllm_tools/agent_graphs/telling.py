"""Steps of an agent's tools: what is called with what, and what it says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import ToolMessage

from ibllm_tools.agent_graphs.steps import tell_step

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import Command

_MAX_ARGS = 300


class TellingTools(AgentMiddleware[Any, Any, Any]):
    """Tells every tool call and its result as steps."""

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Tell a call."""
        _tell_call(request)
        result = handler(request)
        _tell_result(request, result)
        return result

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Tell a call."""
        _tell_call(request)
        result = await handler(request)
        _tell_result(request, result)
        return result


def _tell_call(request: ToolCallRequest) -> None:
    call = request.tool_call
    tell_step("call", described(call["name"], call["args"]), tool=call["name"])


def _tell_result(request: ToolCallRequest, result: ToolMessage | Command[Any]) -> None:
    if isinstance(result, ToolMessage):
        name = request.tool_call["name"]
        tell_step("result", result.text, tool=name, status=result.status)


def described(name: str, args: dict[str, Any]) -> str:
    """A call for people: `find_price(item="lamp")`."""
    told = ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in args.items()
    )
    text = f"{name}({told})"
    return text if len(text) <= _MAX_ARGS else f"{text[: _MAX_ARGS - 1]}…"
