"""`Router`: one structured answer of a chat model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ibllm_tools.routing.prompts import as_langchain, router_messages
from ibllm_tools.routing.routes import Route, fitting

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable, RunnableConfig

    from ibllm_tools.routing.adviser import Adviser


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

    def __init__(self, model: BaseChatModel, adviser: Adviser | None = None) -> None:
        """Take any chat model that has structured output.

        Args:
            model: Chooses.
            adviser: Where it is sure, the model is not asked. A help for very small models.
        """
        self._asked: Runnable[Any, Any] = model.with_structured_output(Route, include_raw=True)
        self._adviser = adviser

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
        if (known := self.known(question, ids)) is not None:
            return known
        prompt = as_langchain(router_messages(question, ids))
        return _read(self._asked.invoke(prompt, config), ids)

    def known(self, question: str, ids: Sequence[str]) -> Route | None:
        """The route that is told without the model; None where it has to be asked."""
        if not ids:
            return Route(experts=["none"])
        if self._adviser is None:
            return None
        experts, certainty = self._adviser.advise(question, ids)
        return Route(experts=experts) if certainty >= self._adviser.sure else None

    def route_all(
        self,
        asked: Sequence[tuple[str, Sequence[str]]],
        config: RunnableConfig | None = None,
    ) -> list[Route]:
        """Choose the experts of many questions, side by side where the model can; see `route`."""
        routes = [self.known(question, ids) for question, ids in asked]
        left = [pair for pair, route in zip(asked, routes, strict=True) if route is None]
        prompts = [as_langchain(router_messages(question, ids)) for question, ids in left]
        said = self._asked.batch(prompts, config) if left else []
        read = iter([_read(one, ids) for one, (_, ids) in zip(said, left, strict=True)])
        return [route or next(read) for route in routes]

    async def aroute(
        self, question: str, ids: Sequence[str], config: RunnableConfig | None = None
    ) -> Route:
        """Choose the experts; see `route`."""
        if (known := self.known(question, ids)) is not None:
            return known
        prompt = as_langchain(router_messages(question, ids))
        return _read(await self._asked.ainvoke(prompt, config), ids)


def _read(said: Any, ids: Sequence[str]) -> Route:
    parsed = said.get("parsed") if isinstance(said, dict) else said
    chosen = parsed if isinstance(parsed, Route) else Route(experts=["answer"])
    return Route(experts=fitting(chosen.experts, ids))
