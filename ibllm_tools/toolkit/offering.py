"""Offering an LLM the tools that have something to work on, and no others.

A small model calls what it is offered; one that is offered nothing for videos while there is no
video cannot ask for one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.tools import BaseTool

from ibllm_tools.attachments.lookup import attachments_of

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ModelRequest, ModelResponse

_WORKS_ON: dict[str, frozenset[str]] = {
    "analyze_video": frozenset({"video"}),
    "detect_objects": frozenset({"image"}),
    "transcribe_speech": frozenset({"audio", "video"}),
}


class OffersTools(AgentMiddleware[Any, Any, Any]):
    """Offers a model other tools than it is given; `offered` says which."""

    def offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """Return the request with the tools that the model shall see."""
        raise NotImplementedError(f"{type(self).__name__} must say what it offers")

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Answer a request with other tools."""
        return handler(self.offered(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Answer a request with other tools."""
        return await handler(self.offered(request))


class FittingTools(OffersTools):
    """Offers each perception tool once the conversation has an attachment for it.

    Tools of other names are always offered. Every tool stays callable, and answers by itself
    where an id is wrong.
    """

    def __init__(self, *, searches_collection: bool = False) -> None:
        """Offer `find_similar` always if it searches a collection, else from two attachments on."""
        super().__init__()
        self._searches = searches_collection

    def offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """Offer what has something to work on."""
        held = attachments_of(request.state)
        modalities: set[str] = {record["modality"] for record in held.values()}
        fitting = [
            tool
            for tool in request.tools
            if not isinstance(tool, BaseTool) or self._fits(tool.name, modalities, len(held))
        ]
        return request.override(tools=fitting)

    def _fits(self, name: str, modalities: set[str], n_held: int) -> bool:
        if name in _WORKS_ON:
            return bool(_WORKS_ON[name] & modalities)
        if name == "find_similar":
            return self._searches or n_held > 1
        return name not in {"perceive", "embed_media"} or n_held > 0
