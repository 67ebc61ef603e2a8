"""Every exception as a status and OpenAI's error object: message, type, param and code."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ibllm_tools.errors import (
    CheckpointError,
    ContextLengthError,
    EngineClosedError,
    IbllmError,
    MediaError,
    MissingExtraError,
    ModelError,
    QueueFullError,
)

INVALID = "invalid_request_error"
RETRY_AFTER_S = 1
_LONGEST = 2000  # characters of a message

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An error with its place in HTTP.

    Attributes:
        status: The HTTP status.
        kind: OpenAI's `type` of it.
        param: The part of the request that it is about.
        code: What a program can tell it by.
        headers: Further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON object that clients read."""
        error = {"message": str(self)[:_LONGEST], "type": self.kind}
        return {"error": {**error, "param": self.param, "code": self.code}}


class ClientGoneError(Exception):
    """The client has closed its connection."""


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def no_model(name: str, names: Sequence[str]) -> ApiError:
    """A model that is not served."""
    return ApiError(
        404,
        f"The model {name[:100]!r} does not exist here; expected one of {', '.join(names)}",
        param="model",
        code="model_not_found",
    )


def too_busy(message: str) -> ApiError:
    """A server without a free place."""
    return ApiError(
        429,
        message,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def as_api_error(error: Exception, param: str | None = None) -> ApiError:
    """Bring an exception to HTTP.

    Args:
        error: Whatever was raised while a request was answered.
        param: The part of the request that holds its media.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return too_busy(str(error))
    if isinstance(error, EngineClosedError):
        return ApiError(503, str(error), kind="server_error", code="server_closing")
    if isinstance(error, ContextLengthError):
        return invalid(str(error), param, "context_length_exceeded")
    if isinstance(error, ModelError):
        return ApiError(500, str(error), kind="server_error", code="model_error")
    if isinstance(error, (CheckpointError, MissingExtraError)):
        return ApiError(404, str(error), param="model", code="model_not_found")
    if isinstance(error, IbllmError):
        # Errors of settings say themselves which one they are about.
        return invalid(str(error), param if isinstance(error, MediaError) else None)
    if isinstance(error, RecursionError):
        return invalid("found JSON nested too deeply; expected a flatter request", param)
    if _is_template_error(error):
        return invalid(f"the model's chat template refuses these messages: {error}", param)
    log.error("a request failed", exc_info=error)
    return ApiError(
        500,
        "the server failed at this request; its log says why",
        kind="server_error",
        code="internal_error",
    )


def _is_template_error(error: Exception) -> bool:
    from jinja2 import TemplateError

    return isinstance(error, TemplateError)


@contextmanager
def about(param: str) -> Iterator[None]:
    """Bring errors in this block to HTTP; `param` is the part of the request with its media."""
    try:
        yield
    except ClientGoneError:
        raise
    except Exception as error:
        raise as_api_error(error, param) from error


def as_validation_error(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """Bring pydantic's complaints about a request to one error; the first one names the place."""
    told = []
    if problems and problems[0].get("type") == "json_invalid":
        why = problems[0].get("ctx", {}).get("error", "not valid")
        return invalid(f"the body is no JSON: {why} at character {problems[0]['loc'][-1]}")
    for problem in problems[:5]:
        place = _place(problem.get("loc", ()))
        told.append(f"{place}: {problem.get('msg', 'not valid')}" if place else problem["msg"])
    first = problems[0] if problems else {}
    return invalid("; ".join(told) or "the request is not valid", _place(first.get("loc", ())))


def _place(loc: Sequence[Any]) -> str | None:
    """A pydantic location as OpenAI writes it: `messages[0].content`; None for the whole body."""
    text = ""
    for part in loc[1:] if loc and loc[0] in {"body", "query", "path"} else loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")[:200] or None
