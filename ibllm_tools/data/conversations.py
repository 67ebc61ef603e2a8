"""Rows to examples: LLaVA, ShareGPT, Alpaca, OpenAI messages and captions become one form.

What is done to the text, and nothing else: placeholders such as `<image>` are taken out of what
the user says (where a medium is present they would be no words), turns of one role that follow
each other are joined, and what comes before the first question or after the last answer is cut.
Text is never looked at for special tokens; `model.prompts` encodes it so that it holds none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ibllm_tools.data.columns import caption_of, media_of
from ibllm_tools.data.examples import Example, MediaRef, SourceReport
from ibllm_tools.data.placing import Place, is_unicode
from ibllm_tools.data.rows import Row, RowError
from ibllm_tools.media import Modality
from ibllm_tools.media.problems import shown
from ibllm_tools.model.prompts import CAPTION_REQUEST

_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "user",
    "function": "user",
    "observation": "user",
    "function_response": "user",
}
_TOOL_ROLES = {"tool", "function", "observation", "function_response"}
_NOUNS: dict[Modality, str] = {"audio": "sound", "depth": "depth map", "thermal": "thermal image"}
_NOUNS |= {"video": "video", "imu": "motion", "point": "3D shape"}
_PLACEHOLDER = re.compile(
    r"(?:<im_start>)?<(image|video|audio|depth|thermal|imu|point)(?:-placeholder)?>(?:<im_end>)?"
)
_ID_COLUMNS = ("id", "sample_id", "key", "__key__")
SHAPES = ("llava", "sharegpt", "alpaca", "messages", "captions")

Message = dict[str, str]
_Turns = list[Message]


def build_example(row: Row, place: Place, report: SourceReport, shape: str | None) -> Example:
    """Turn a row into an example.

    Args:
        row: As read.
        place: Where its media may lie.
        report: Gets a note for each change to the text.
        shape: One of `SHAPES` to take rows of this shape only; None tells it row by row.

    Raises:
        RowError: The row cannot be used; it says why.
    """
    fields = {str(name).lower(): value for name, value in row.fields.items()}
    read = _reader(fields, shape)
    media = media_of(row, fields, place)
    turns = _in_order(read(fields, media, report), report)
    return Example(_id(fields, row.where), tuple(_spoken(turns, media)), media)


def _reader(fields: Mapping[str, Any], shape: str | None) -> Callable[..., _Turns]:
    """How the text of this row is read."""
    if shape in {None, "llava", "sharegpt", "messages"}:
        column = next((name for name in ("conversations", "messages") if fields.get(name)), None)
        if column is not None:
            return lambda fields, _media, report: _from_turns(column, fields, report)
    if shape in {None, "alpaca"} and _first_text(fields, "instruction", "input"):
        return _from_alpaca
    if shape in {None, "captions"}:
        return _from_caption
    expected = {"alpaca": "instruction and output"}.get(str(shape), "conversations or messages")
    raise RowError("not of this format", f"found {shown(', '.join(fields))}, expected {expected}")


def _from_turns(column: str, fields: Mapping[str, Any], report: SourceReport) -> _Turns:
    entries = fields[column]
    if not isinstance(entries, Sequence) or isinstance(entries, (str, bytes)):
        raise RowError("no conversation", f"{column} is {shown(entries)}, expected a list of turns")
    turns = [_turn(entry, report) for entry in entries]
    system = fields.get("system")
    return [_message("system", system), *turns] if _is_text(system) else turns


def _turn(entry: Any, report: SourceReport) -> Message:
    if not isinstance(entry, Mapping):
        raise RowError("no conversation", f"a turn is {shown(entry)}, expected an object")
    said = entry.get("from", entry.get("role"))
    role = _ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise RowError("unknown role", f"found {shown(said)}, expected {', '.join(_ROLES)}")
    if str(said).strip().lower() in _TOOL_ROLES:
        report.note("a tool's result was put into a user turn")
    content = entry.get("value", entry.get("content"))
    if not content and entry.get("tool_calls"):
        report.note("a tool call was written as JSON")
        return _message(role, _calls(entry["tool_calls"]))
    return _message(role, _joined_blocks(content))


def _calls(calls: Any) -> str:
    try:
        return json.dumps(calls, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RowError("no conversation", "tool_calls are not JSON") from error


def _joined_blocks(content: Any) -> Any:
    """The text of OpenAI's content blocks; a block of media stands for a placeholder."""
    if not isinstance(content, (list, tuple)):
        return content
    texts = [block.get("text") for block in content if isinstance(block, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _from_alpaca(
    fields: Mapping[str, Any], _media: Sequence[MediaRef], _report: SourceReport
) -> _Turns:
    turns: _Turns = []
    if _is_text(fields.get("system")):
        turns.append(_message("system", fields["system"]))
    history = fields.get("history") or ()
    for pair in history if isinstance(history, Sequence) else ():
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise RowError("no conversation", "history is no list of question and answer")
        turns += [_message("user", pair[0]), _message("assistant", pair[1])]
    asked = [fields.get("instruction"), fields.get("input")]
    question = "\n\n".join(text.strip() for text in asked if isinstance(text, str) and text.strip())
    answer = _first_text(fields, "output", "response")
    if not answer:
        raise RowError("empty answer", "output is empty")
    return [*turns, _message("user", question), _message("assistant", answer)]


def _from_caption(
    fields: Mapping[str, Any], media: Sequence[MediaRef], report: SourceReport
) -> _Turns:
    caption = caption_of(fields)
    if not media:
        raise RowError("no medium", f"found columns {shown(', '.join(fields))}")
    if not caption:
        raise RowError("empty caption", "it has no text")
    if isinstance(fields.get("caption"), (list, tuple)):
        report.note("the first of several captions was taken")
    return [_message("user", caption_request(media)), _message("assistant", caption)]


def caption_request(media: Sequence[MediaRef]) -> str:
    """The question that a caption answers: the released model's, with the fitting noun."""
    noun = _NOUNS.get(media[0].modality, "image") if media else "image"
    return CAPTION_REQUEST.replace("image", noun)


def _in_order(turns: _Turns, report: SourceReport) -> _Turns:
    """Bring turns to system, user, assistant, user, assistant."""
    ordered: _Turns = []
    for turn in turns:
        role = turn["role"]
        if role == "system" and any(other["role"] != "system" for other in ordered):
            raise RowError("system turn in the middle", "expected it first")
        if role == "assistant" and not any(other["role"] == "user" for other in ordered):
            report.note("an answer before the first question was cut")
        elif ordered and ordered[-1]["role"] == role:
            report.note("turns of one role that follow each other were joined")
            ordered[-1] = _message(role, f"{ordered[-1]['content']}\n\n{turn['content']}".strip())
        else:
            ordered.append(turn)
    if ordered and ordered[-1]["role"] == "user" and len(ordered) > 1:
        report.note("a last question without an answer was cut")
        ordered.pop()
    if not ordered or ordered[-1]["role"] != "assistant":
        raise RowError("no assistant turn", f"found {len(turns)} turns")
    return ordered


def _spoken(turns: _Turns, media: Sequence[MediaRef]) -> _Turns:
    """Take placeholders out, and refuse turns without text."""
    left = len(media)
    spoken = []
    for turn in turns:
        role, text = turn["role"], turn["content"]
        if role == "user":
            text, count = _without_placeholders(text, media)
            left -= count
            if not text and media:
                text = caption_request(media)
        if not text:
            raise RowError(f"empty {'answer' if role == 'assistant' else 'question'}", "no text")
        spoken.append(_message(role, text))
    if left < 0:
        raise RowError("placeholder without medium", f"{len(media) - left} for {len(media)} media")
    return spoken


def _without_placeholders(text: str, media: Sequence[MediaRef]) -> tuple[str, int]:
    """Without media only a leading or ending `<image>` is one: HTML has such words as well."""
    if not media:
        bare = text.startswith("<image>") or text.endswith("<image>")
        return text, int(bare)
    present = {"image", *(ref.modality for ref in media)}
    found = [match for match in _PLACEHOLDER.finditer(text) if match[1] in present]
    for match in reversed(found):
        before, after = text[: match.start()].rstrip(" "), text[match.end() :].lstrip(" ")
        gap = "" if not before or not after or before[-1] == "\n" or after[0] == "\n" else " "
        text = before + gap + after
    return text.strip(), len(found)


def _message(role: str, content: Any) -> Message:
    if not isinstance(content, str):
        raise RowError("no text in a turn", f"found {shown(content)}, expected text")
    if not is_unicode(content):
        raise RowError("text is not valid Unicode", "half of a surrogate pair")
    return {"role": role, "content": content.strip()}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _first_text(fields: Mapping[str, Any], *names: str) -> str:
    return next((fields[name] for name in names if _is_text(fields.get(name))), "")


def _id(fields: Mapping[str, Any], where: str) -> str:
    for name in _ID_COLUMNS:
        value = fields.get(name)
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value)[:200].strip() if abs(_size(value)) < 2**63 else ""
            if text and is_unicode(text):
                return text
    return where


def _size(value: str | int) -> int:
    return value if isinstance(value, int) else 0
