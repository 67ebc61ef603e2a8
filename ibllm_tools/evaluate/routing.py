"""How often a chat model routes questions to the right experts.

The questions are those of `ibllm_tools.routing.questions`: no template of theirs is trained on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.evaluate.results import Measure, Section, Target, share
from ibllm_tools.evaluate.scorecard import Scorecard
from ibllm_tools.routing import (
    EXPERTS,
    Route,
    Router,
    RoutingCase,
    is_chinese,
    routing_cases,
    shipped_adviser,
)

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

LEAST = 0.92
SEVERAL = "several"
_AT_ONCE = 8
_VERSIONED = ("torch", "transformers", "langchain-core")


def evaluate_routing(
    model: BaseChatModel,
    name: str = "pocket",
    *,
    alone: bool = False,
    cases: Sequence[RoutingCase] | None = None,
) -> Scorecard:
    """Route every question of the test.

    Args:
        model: Any chat model with structured output.
        name: What the scorecard calls it.
        alone: Ask the model about every question; else, as the agent does, a `ChatImageBindLLM`
            is not asked where the adviser is sure.
        cases: Questions; by default the whole test.
    """
    started = time.perf_counter()
    asked = list(routing_cases() if cases is None else cases)
    advised = isinstance(model, ChatImageBindLLM) and not alone
    router = Router(model, shipped_adviser() if advised else None)
    routes: list[Route] = []
    for first in range(0, len(asked), _AT_ONCE):
        part = asked[first : first + _AT_ONCE]
        routes += router.route_all(
            [(c.question, c.ids) for c in part], {"max_concurrency": _AT_ONCE}
        )
    return Scorecard(
        model=name,
        data="ibllm_tools/routing/questions.psv",
        split="held out by template",
        limit=None,
        through="chat",
        command=f"ibllm eval routing --model {name}" + " --alone" * alone,
        versions={package: version(package) for package in _VERSIONED},
        media={"questions": len(asked)},
        sections=[_section(asked, routes, router)],
        seconds=time.perf_counter() - started,
    )


def _section(cases: Sequence[RoutingCase], routes: Sequence[Route], router: Router) -> Section:
    rows = [
        (case, set(case.experts) == set(route.experts))
        for case, route in zip(cases, routes, strict=True)
    ]
    section = Section("routing", "Questions to the right experts")
    flags = [right for _, right in rows]
    section.measures.append(share("all", "all questions", flags, target=Target(low=LEAST)))
    for chinese, label in ((False, "English"), (True, "Chinese")):
        part = [right for case, right in rows if is_chinese(case.question) is chinese]
        section.measures.append(share(label.lower(), f"in {label}", part))
    hard = [right for case, right in rows if router.known(case.question, case.ids) is None]
    note = f"the words alone tell {len(rows) - len(hard)} questions"
    section.measures.append(share("asked", "the model was asked", hard, note=note))
    for route in (*EXPERTS, SEVERAL):
        section.measures.append(_of_route(route, rows))
    section.details["wrong"] = [
        {"question": case.question, "right": list(case.experts), "chosen": list(route.experts)}
        for (case, right), route in zip(rows, routes, strict=True)
        if not right
    ]
    return section


def _of_route(route: str, rows: Sequence[tuple[RoutingCase, bool]]) -> Measure:
    own = [(case, right) for case, right in rows if _name(case) == route]
    label = f"needs {'several experts' if route == SEVERAL else route}"
    return share(route, label, [right for _, right in own], note=_by_language(own))


def _by_language(rows: Sequence[tuple[RoutingCase, bool]]) -> str:
    """`English 40 of 51, Chinese 20 of 22`."""
    told = []
    for chinese, label in ((False, "English"), (True, "Chinese")):
        part: list[Any] = [right for case, right in rows if is_chinese(case.question) is chinese]
        if part:
            told.append(f"{label} {sum(part)} of {len(part)}")
    return ", ".join(told)


def _name(case: RoutingCase) -> str:
    return case.experts[0] if len(case.experts) == 1 else SEVERAL
