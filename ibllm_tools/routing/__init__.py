"""Routing: a chat model says which experts a question about media needs, and reads their results.

```
question + ids -> Router (one structured answer) -> Route -> experts -> lines of results
                                                   question + lines -> the chat model's answer
```
Knows no model and opens no file: experts work on attachments, which code picks. Any LangChain
chat model can be the router.
"""

from __future__ import annotations

from ibllm_tools.routing.adviser import Adviser, shipped_adviser
from ibllm_tools.routing.claims import conclude
from ibllm_tools.routing.prompts import (
    ANSWER_PROMPT,
    PLAIN_PROMPT,
    ROUTER_PROMPT,
    answer_messages,
    as_langchain,
    is_chinese,
    plain_messages,
    router_messages,
    with_results,
)
from ibllm_tools.routing.questions import (
    RoutingCase,
    held_templates,
    routing_cases,
    template_of,
)
from ibllm_tools.routing.results import (
    place_of,
    say_likeness,
    say_objects,
    say_pair,
    say_senses,
    say_speech,
)
from ibllm_tools.routing.router import Router
from ibllm_tools.routing.routes import EXPERTS, Expert, Route, fitting, kind_of_id
from ibllm_tools.routing.spoken import conclude_speech
from ibllm_tools.routing.words import Noun, asked_kinds, asked_nouns, ids_in, known_nouns, noun_of

__all__ = [
    "ANSWER_PROMPT",
    "EXPERTS",
    "PLAIN_PROMPT",
    "ROUTER_PROMPT",
    "Adviser",
    "Expert",
    "Noun",
    "Route",
    "Router",
    "RoutingCase",
    "answer_messages",
    "as_langchain",
    "asked_kinds",
    "asked_nouns",
    "conclude",
    "conclude_speech",
    "fitting",
    "held_templates",
    "ids_in",
    "is_chinese",
    "kind_of_id",
    "known_nouns",
    "noun_of",
    "place_of",
    "plain_messages",
    "router_messages",
    "routing_cases",
    "say_likeness",
    "say_objects",
    "say_pair",
    "say_senses",
    "say_speech",
    "shipped_adviser",
    "template_of",
    "with_results",
]
