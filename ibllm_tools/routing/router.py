"""`Router`: one structured answer of a chat model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibllm_tools.routing.prompts import as_langchain, router_messages
from ibllm_tools.routing.routes import Route, fitting

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable, RunnableConfig


class Router:
    """Asks a chat model which experts a question about attachments needs.

    The answer is held to a closed set, and experts that have nothing to work on are dropped by
    code: a model cannot route to anything else.

    ```python
    from ibllm_tools import ChatImageBindLLM
    from ibllm_tools.routing import Router

    router = Router(ChatImageBindLLM())
    print(router.route("How many dogs are there?", ["image-1"]).experts)
    ```
    """

    def __init__(self, model: BaseChatModel) -> None:
        """Take any chat model that has structured output."""
        self._asked: Runnable[Any, Any] = model.with_structured_output(Route, include_raw=True)

    def route(
        self, question: str, ids: Sequence[str], config: RunnableConfig | None = None
    ) -> Route:
        """Choose the experts.

        Args:
            question: What the user asks, without tags.
            ids: Of the attachments, such as `image-1`.
            config: Of LangChain, for callbacks.

        Returns:
            The route; `answer` where the model's own answer cannot be read.
        """
        if not ids:
            return Route(experts=["none"])
        prompt = as_langchain(router_messages(question, ids))
        return _read(self._asked.invoke(prompt, config), ids)

    def route_all(
        self,
        asked: Sequence[tuple[str, Sequence[str]]],
        config: RunnableConfig | None = None,
    ) -> list[Route]:
        """Choose the experts of many questions, side by side where the model can; see `route`."""
        prompts = [as_langchain(router_messages(question, ids)) for question, ids in asked]
        said = self._asked.batch(prompts, config)
        return [_read(one, ids) for one, (_, ids) in zip(said, asked, strict=True)]

    async def aroute(
        self, question: str, ids: Sequence[str], config: RunnableConfig | None = None
    ) -> Route:
        """Choose the experts; see `route`."""
        if not ids:
            return Route(experts=["none"])
        prompt = as_langchain(router_messages(question, ids))
        return _read(await self._asked.ainvoke(prompt, config), ids)


def _read(said: Any, ids: Sequence[str]) -> Route:
    parsed = said.get("parsed") if isinstance(said, dict) else said
    chosen = parsed if isinstance(parsed, Route) else Route(experts=["answer"])
    return Route(experts=fitting(chosen.experts, ids))
