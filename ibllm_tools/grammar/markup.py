"""How an LLM's chat template writes tool calls, found by letting it write some.

```
opening        name   middle              arguments        joint / closing
<|call|>{"name": "    f   ", "arguments":   {"x": 1}   }<|call|>{"name": "  /  }
```
Nothing is known of any template beforehand. Three conversations with made-up calls are rendered;
what stands before, between and after the made-up words is the markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.grammar.vocabulary import special_tokens

if TYPE_CHECKING:
    from ibllm_tools.grammar.parsing import CallParser

ID_MARK = "\ue000"
"""Stands in a markup where each call has an id of its own."""

_TALK, _NAMES, _IDS = "Ibllmtalk", ("ibllm_one", "ibllm_two"), ("ibprobe01", "ibprobe02")
_ARGUMENTS = {"ibkey": "ibword", "ibmore": 1}
_WRITTEN = re.compile(r'\{"ibkey"(\s*:\s*)"ibword"(\s*,\s*)"ibmore"\s*:\s*1\}')
_TURN_ENDS = ("<|eom_id|>", "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "</s>")
_MARKER = re.compile(r"[^\s{\[\"]{4,}|\[[^\s{\"]{3,}")


@dataclass(frozen=True)
class CallMarkup:
    """What surrounds the names and arguments of tool calls in an assistant's turn.

    Attributes:
        opening: Before the first name.
        middle: Between a name and its arguments.
        joint: Between arguments and the next name; None where a turn holds one call at most.
        closing: After the last arguments, before the turn ends.
        trigger: The beginning of the opening that no other text may hold.
        item_separator: Between the items of arguments.
        key_separator: Between a key and its value.
        takes_text: The template wants arguments as JSON text, not as an object.
    """

    opening: str
    middle: str
    joint: str | None
    closing: str
    trigger: str
    item_separator: str = ", "
    key_separator: str = ": "
    takes_text: bool = False

    @classmethod
    def of(cls, tokenizer: Any) -> CallMarkup:
        """Find the markup of a tokenizer's chat template, or of the fallback that replaces it.

        Raises:
            ConfigurationError: Calls cannot be found in what the template writes.
        """
        from ibllm_tools.grammar.templates import template_and_markup

        return template_and_markup(tokenizer)[1]

    @property
    def is_bare(self) -> bool:
        """Whether a call is nothing but JSON, so that it has to be the whole answer."""
        return self.opening.startswith("{")

    @property
    def has_ids(self) -> bool:
        """Whether calls are written with ids, of nine letters and digits."""
        return any(ID_MARK in (part or "") for part in (self.opening, self.joint, self.closing))

    def marks(self, specials: Mapping[str, int]) -> frozenset[int]:
        """The special tokens that belong to this markup, of those given by their spelling."""
        whole = "\n".join(filter(None, (self.opening, self.middle, self.joint, self.closing)))
        return frozenset(index for text, index in specials.items() if text and text in whole)

    def stream(self) -> CallParser:
        """Return a parser of one answer that is fed piece by piece."""
        from ibllm_tools.grammar.parsing import CallParser

        return CallParser(self)

    def parse(self, answer: str) -> tuple[str, list[dict[str, Any]]]:
        """Split a whole answer.

        Args:
            answer: Its text, with the special tokens of the markup spelled.

        Returns:
            The text, and `{"name", "arguments"}` for each call; arguments that are no JSON
            object stay text.
        """
        from ibllm_tools.grammar.parsing import parse_answer

        return parse_answer(self, answer)

    def ready(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Bring the calls of messages to the form that the template takes.

        Args:
            messages: In OpenAI's form; arguments may be objects or JSON text.
        """
        return [
            {
                key: [self._ready_call(call) for call in value or ()]
                if key == "tool_calls"
                else self._ready_id(value)
                if key == "tool_call_id"
                else value
                for key, value in message.items()
                if key != "tool_calls" or value
            }
            for message in messages
        ]

    def _ready_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = call.get("function") or call
        given = function.get("arguments", function.get("args")) or {}
        if self.takes_text and not isinstance(given, str):
            given = json.dumps(given, ensure_ascii=False)
        elif not self.takes_text and isinstance(given, str):
            given = object_or_text(given)
        written = {"name": function["name"], "arguments": given}
        return {"type": "function", "id": self._ready_id(call.get("id")), "function": written}

    def _ready_id(self, given: Any) -> Any:
        if not self.has_ids or re.fullmatch("[a-zA-Z0-9]{9}", str(given)):
            return given
        import hashlib

        return hashlib.sha256(str(given).encode()).hexdigest()[:9]


def object_or_text(text: str) -> Any:
    """Read a JSON object; text that is none stays text."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, dict) else text


def find_markup(tokenizer: Any, template: str | None) -> CallMarkup:
    """Find the markup of a chat template.

    Args:
        tokenizer: A tokenizer of transformers.
        template: The template's text; None for the tokenizer's own.

    Raises:
        ConfigurationError: Calls, tools or results do not show in what the template writes.
    """
    problem: Exception | None = None
    for takes_text in (False, True):
        try:
            return _Probe(tokenizer, template, takes_text).markup()
        except ConfigurationError as error:
            problem = problem or error
        except Exception as error:  # noqa: BLE001  # a template may raise anything
            problem = problem or error
    raise ConfigurationError(
        f"the chat template does not write tools, calls and results in a way that can be read "
        f"back ({problem})"
    )


@dataclass(frozen=True)
class _Probe:
    tokenizer: Any
    template: str | None
    takes_text: bool

    def markup(self) -> CallMarkup:
        before, after, written = self._first_call()
        name_end = before.rindex(_NAMES[0])
        middle = before[name_end + len(_NAMES[0]) :]
        opening = _with_id_marks(before[:name_end])
        if not opening or _TALK in middle:
            raise ConfigurationError("a name stands without anything before it")
        self._check_tools_and_results()
        return CallMarkup(
            opening,
            _with_id_marks(middle),
            self._joint(),
            _with_id_marks(self._until_turn_end(after)),
            self._trigger(opening),
            written.group(2),
            written.group(1),
            self.takes_text,
        )

    def _trigger(self, opening: str) -> str:
        """The special token that an opening begins with, its first word, or all of it."""
        begin = [text for text in special_tokens(self.tokenizer) if opening.startswith(text)]
        if begin:
            return max(begin, key=len)
        found = _MARKER.match(opening)
        return found.group() if found else opening

    def _first_call(self) -> tuple[str, str, re.Match[str]]:
        """What stands before and after the arguments of one call, and the arguments."""
        text = self._render(self._says(_TALK, 1))
        start = text.rfind(_TALK)
        if start < 0 or _NAMES[0] not in text[start:]:
            start = 0
            text = self._render(self._says("", 1))
            prompt = self._render(None)
            while start < min(len(text), len(prompt)) and text[start] == prompt[start]:
                start += 1
        else:
            start += len(_TALK)
        turn = text[start:]
        written = _WRITTEN.search(turn)
        if written is None or _NAMES[0] not in turn[: written.start()]:
            raise ConfigurationError("a call's name and JSON arguments do not follow one another")
        return turn[: written.start()].lstrip(), turn[written.end() :], written

    def _joint(self) -> str | None:
        try:
            text = self._render(self._says("", 2))
        except Exception:  # noqa: BLE001  # the template says that it takes one call at a time
            return None
        found = list(_WRITTEN.finditer(text))
        if len(found) != 2:
            return None
        between = text[found[0].end() : found[1].start()]
        place = between.rfind(_NAMES[1])
        return _with_id_marks(between[:place]) if place >= 0 else None

    def _until_turn_end(self, text: str) -> str:
        ends = [token for token in (self.tokenizer.eos_token, *_TURN_ENDS) if token]
        places = [place for end in ends if (place := text.find(end)) >= 0]
        return text[: min(places)] if places else text.rstrip()

    def _check_tools_and_results(self) -> None:
        result = {"role": "tool", "content": "Ibllmresult", "name": _NAMES[0]}
        result["tool_call_id"] = _IDS[0]
        text = self._render(self._says("", 1), result)
        if "Ibllmtool" not in text or "ibkey" not in text.split("Ibllmtool")[-1]:
            raise ConfigurationError("it does not list tools")
        if "Ibllmresult" not in text:
            raise ConfigurationError("it does not show results of tools")

    def _says(self, talk: str, n_calls: int) -> dict[str, Any]:
        given: Any = json.dumps(_ARGUMENTS) if self.takes_text else _ARGUMENTS
        calls = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": given}}
            for id_, name in zip(_IDS, _NAMES, strict=True)
        ]
        return {"role": "assistant", "content": talk, "tool_calls": calls[:n_calls]}

    def _render(self, *answer: dict[str, Any] | None) -> str:
        properties = {"ibkey": {"type": "string"}, "ibmore": {"type": "integer"}}
        parameters = {"type": "object", "properties": properties, "required": ["ibkey"]}
        tools = [
            {
                "type": "function",
                "function": {
                    "name": name, "description": "Ibllmtool", "parameters": parameters,
                },
            }
            for name in _NAMES
        ]  # fmt: skip
        messages = [{"role": "user", "content": "Hi."}, *filter(None, answer)]
        text: str = self.tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self.template,
            add_generation_prompt=answer == (None,),
            tokenize=False,
        )
        return text


def _with_id_marks(text: str) -> str:
    for id_ in _IDS:
        text = text.replace(id_, ID_MARK)
    return text
