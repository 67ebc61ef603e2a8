"""Questions that routing is tested with; training leaves out every template of theirs.

A template is what is left of a question when things, media and ids are taken out, without
articles, case and punctuation: `how many # did you find in @`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ibllm_tools.routing.routes import EXPERTS, Expert
from ibllm_tools.routing.words import known_forms

_MEDIA = (
    "picture|photo|photograph|image|snapshot|scene|shot|recording|audio|sound|clip|message|file|"
    "video|film|voice note|voice message|audio file|图片|照片|画面|图|录音|音频|语音|声音|留言|"
    "视频|短片"
)
_SLOTS = re.compile(r"\{[nsa]2?\}")
_MEDIA_SLOTS = re.compile(r"\{[muv]\}")
_ID = re.compile(r"\{[ijk]\}|[a-z]+-\d+")
_ARTICLES = re.compile(r"(?<![a-z])(?:a|an|the|this|that|these|those|my)(?![a-z])")


@dataclass(frozen=True)
class RoutingCase:
    """One question of the test.

    Attributes:
        question: English or Chinese.
        ids: Of the attachments.
        experts: The right route.
    """

    question: str
    ids: tuple[str, ...]
    experts: tuple[Expert, ...]


@cache
def routing_cases() -> tuple[RoutingCase, ...]:
    """All questions of the test."""
    lines = (Path(__file__).parent / "questions.psv").read_text(encoding="utf-8").splitlines()
    cases = []
    for line in lines[1:]:
        route, ids, question = line.split("|")
        named = route.split("+")
        experts = tuple(expert for expert in EXPERTS if expert in named)
        assert len(experts) == len(named), line
        cases.append(RoutingCase(question, tuple(ids.split()), experts))
    return tuple(cases)


def template_of(question: str) -> str:
    """What is left of a question, or of a template of training, without its fillers."""
    text = _ARTICLES.sub(" ", without_fillers(question))
    return "".join(re.findall(r"[a-z']+|[\u4e00-\u9fff]|[#@=]|\d+", text))


def without_fillers(question: str) -> str:
    """A question in small letters, with `#` for things, `@` for media and `=` for ids."""
    text = _MEDIA_SLOTS.sub("@", _SLOTS.sub("#", question.casefold()))
    text = _words().sub("#", _ID.sub("=", text))
    return _media().sub("@", text)


@cache
def _media() -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z])(?:{_MEDIA})s?(?![a-z])")


@cache
def held_templates() -> frozenset[str]:
    """The templates of the test."""
    return frozenset(template_of(case.question) for case in routing_cases())


@cache
def _words() -> re.Pattern[str]:
    forms = known_forms()
    latin = "|".join(re.escape(form) for form in forms if form.isascii())
    han = "|".join(re.escape(form) for form in forms if not form.isascii())
    return re.compile(rf"(?<![a-z])(?:{latin})(?![a-z])|{han}")
