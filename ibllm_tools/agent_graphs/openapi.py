"""Tools from OpenAPI documents: one for each operation, with its arguments as a schema.

```
document -> OpenAPISpec (langchain-community) -> operations -> tools
call     -> path, query and body by code -> requests toolkit (langchain-community) -> guarded send
```
An LLM fills in arguments, never an address: scheme, host and path come from the document, the host
must be on the person's list, and what is filled in is escaped. Requests are bounded in time and
size, and redirects are not followed.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode, urljoin, urlsplit

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from ibllm_tools.agent_graphs.api_schemas import simple_schema
from ibllm_tools.errors import ConfigurationError, IbllmError, MediaError, MissingExtraError
from ibllm_tools.media import MediaPolicy
from ibllm_tools.media.fetching import Answer, is_listed, send

if TYPE_CHECKING:
    from langchain_community.utilities.openapi import OpenAPISpec

VERBS = ("get", "post", "put", "patch", "delete")
READS = "reads"
"""Key of a tool's metadata: whether it only reads."""
MAX_CHARS = 2000
"""Most characters of an answer that an LLM is told."""
_MAX_DESCRIPTION = 200
_LOCAL = re.compile(r"(localhost|[\d.]+|\[?[0-9a-f:]*:[0-9a-f:]*\]?)(:\d+)?", re.IGNORECASE)
_Place = Literal["path", "query", "header", "cookie"]


@dataclass(frozen=True)
class ApiDocument:
    """An OpenAPI document, and what a person says about it.

    Attributes:
        document: A file, its text, its address, or the document itself.
        base_url: Where the API is; by default the first server of the document.
        headers: Sent with every call, such as an Authorization; no LLM sees them.
        operations: Names of the only operations to offer; by default all.
    """

    document: str | Path | Mapping[str, Any]
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    operations: Sequence[str] | None = None


@dataclass(frozen=True)
class _Operation:
    """One operation: where its arguments go."""

    name: str
    verb: str
    base_url: str
    path: str
    places: Mapping[str, _Place]
    in_body: frozenset[str]
    body: Literal["fields", "whole", "none"]


def calls_policy(
    allowed_hosts: Sequence[str], *, timeout_s: float = 20.0, max_bytes: int = 2**20
) -> MediaPolicy:
    """The policy of calls: only these hosts; addresses that are local only where one is listed.

    Args:
        allowed_hosts: As in `MediaPolicy`: `example.com`, `*.example.com`, `127.0.0.1:8080`.
        timeout_s: Longest time of one call.
        max_bytes: Most bytes of one answer.
    """
    return MediaPolicy(
        allowed_hosts=tuple(allowed_hosts),
        # A person who lists an address of this machine or network means it.
        allow_private_addresses=any(_LOCAL.fullmatch(host) for host in allowed_hosts),
        fetch_timeout_s=timeout_s,
        max_bytes=max_bytes,
        max_redirects=0,
    )


def openapi_tools(api: ApiDocument, policy: MediaPolicy) -> list[BaseTool]:
    """Make a tool for each operation of a document.

    Args:
        api: The document.
        policy: Which hosts may be called; see `calls_policy`.

    Raises:
        ConfigurationError: It is no OpenAPI document, its host is not allowed, or it has no
            operation that can be called.
        MissingExtraError: langchain-community is not installed.
    """
    spec = _read(api, policy)
    base_url = _base_url(api, spec, policy)
    requests = _toolkit(api, policy)
    tools: list[BaseTool] = []
    for path, verb in _operations(spec):
        tool = _tool(spec, path, verb, base_url, requests)
        if tool is not None and (api.operations is None or tool.name in api.operations):
            tools.append(tool)
    if not tools:
        wanted = f" named {', '.join(api.operations)}" if api.operations else ""
        raise ConfigurationError(
            f"{spec.info.title}: found no operation{wanted} that can be called; expected paths "
            f"with {', '.join(VERBS)} and JSON; look into the document"
        )
    return tools


def _read(api: ApiDocument, policy: MediaPolicy) -> OpenAPISpec:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from langchain_community.utilities.openapi import OpenAPISpec
        import openapi_pydantic  # noqa: F401 - langchain-community works without it, half
    except ImportError as error:
        raise MissingExtraError(error.name or "langchain-community", "community") from error
    given = api.document
    try:
        told = dict(given) if isinstance(given, Mapping) else _parsed(_text(given, policy))
        _check_version(str(told["openapi"]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, in its parser
            # What is read here is the same in all releases of version 3.
            return OpenAPISpec.from_spec_dict({**told, "openapi": "3.1.0"})
    except IbllmError:
        raise
    except Exception as error:  # whatever a broken document makes the parsers raise
        raise ConfigurationError(
            f"found no OpenAPI document in {str(given)[:80]!r} ({type(error).__name__}); expected "
            "JSON or YAML with openapi 3, info and paths; check the file"
        ) from error


def _check_version(version: str) -> None:
    if not version.startswith("3."):
        raise ValueError(version)


def _parsed(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        return dict(json.loads(text))
    import yaml

    return dict(yaml.safe_load(text))


def _text(given: str | Path, policy: MediaPolicy) -> str:
    if isinstance(given, Path):
        return _file(given)
    if given.startswith(("http://", "https://")):
        return send("GET", given, policy, "the OpenAPI document").body.decode("utf-8")
    return given if "\n" in given or given.lstrip().startswith("{") else _file(Path(given))


def _file(path: Path) -> str:
    try:
        return path.expanduser().read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path}: found no file that can be read ({error.strerror}); expected an OpenAPI "
            "document; check the path"
        ) from error


def _base_url(api: ApiDocument, spec: OpenAPISpec, policy: MediaPolicy) -> str:
    told = api.base_url or (spec.servers[0].url if spec.servers else "")
    if not api.base_url and isinstance(api.document, str) and "://" in api.document.split()[0]:
        told = urljoin(api.document, told)
    parts = urlsplit(told)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{spec.info.title}: found the server {told!r}; expected an address with http:// or "
            "https://; pass base_url"
        )
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    if not is_listed(parts.hostname, port, policy.allowed_hosts):
        listed = ", ".join(policy.allowed_hosts) or "none"
        raise ConfigurationError(
            f"{spec.info.title}: found the host {parts.netloc}; expected one that you allow "
            f"({listed}); add it to allowed_hosts (`--host`) if this API may be called"
        )
    return told.rstrip("/")


def _operations(spec: OpenAPISpec) -> list[tuple[str, str]]:
    return [
        (path, verb)
        for path in spec.paths or {}
        for verb in spec.get_methods_for_path(path)
        if verb in VERBS and not spec.get_operation(path, verb).deprecated
    ]


def _tool(
    spec: OpenAPISpec, path: str, verb: str, base_url: str, requests: Mapping[str, BaseTool]
) -> BaseTool | None:
    """The tool of one operation; None where it needs what an LLM cannot give."""
    told = spec.get_operation(path, verb)
    own = spec.get_parameters_for_operation(told)
    named = {(p.name, p.param_in): p for p in [*spec.get_parameters_for_path(path), *own]}
    properties: dict[str, Any] = {}
    required: list[str] = []
    places: dict[str, _Place] = {}
    for (name, place), parameter in named.items():
        if place.value in {"path", "query"}:
            schema = simple_schema(spec, parameter.param_schema)
            words = parameter.description or schema.get("description")
            properties[name] = schema | ({"description": _short(words)} if words else {})
            places[name] = place.value
            required += [name] if parameter.required or place.value == "path" else []
        # Headers and cookies are a person's to give.
    body = _body(spec, told, places)
    if body is None:
        return None
    properties |= body["properties"]
    required += [name for name in body["required"] if name not in required]
    name = re.sub(r"\W+", "_", spec.get_cleaned_operation_id(told, path, verb))[:64]
    fields = frozenset(body["properties"])
    operation = _Operation(name, verb, base_url, path, places, fields, body["kind"])
    return StructuredTool(
        name=name,
        description=_short(told.summary or told.description or f"{verb} {path}"),
        args_schema={"type": "object", "properties": properties, "required": required},
        func=_caller(operation, required, requests),
        handle_tool_error=True,
        metadata={READS: verb == "get"},
    )


def _body(spec: OpenAPISpec, told: Any, places: Mapping[str, str]) -> dict[str, Any] | None:
    """Properties of a JSON body: its fields, or "body" as a whole; None for other types."""
    wanted = spec.get_request_body_for_operation(told)
    if wanted is None:
        return {"properties": {}, "required": [], "kind": "none"}
    media = next((m for name, m in wanted.content.items() if "json" in name), None)
    if media is None:
        return None if wanted.required else {"properties": {}, "required": [], "kind": "none"}
    schema = simple_schema(spec, media.media_type_schema)
    fields = schema.get("properties") or {}
    if fields and not set(fields) & set(places):
        return {"properties": fields, "required": schema.get("required", []), "kind": "fields"}
    return {"properties": {"body": schema}, "required": ["body"], "kind": "whole"}


def _caller(
    operation: _Operation, required: Sequence[str], requests: Mapping[str, BaseTool]
) -> Callable[..., str]:
    def run(**arguments: Any) -> str:
        missing = [name for name in required if name not in arguments]
        unknown = [n for n in arguments if n not in operation.places and n not in operation.in_body]
        if missing or unknown:
            raise ToolException(
                f"{operation.name}: found {', '.join(unknown) or 'no'} unknown and expected "
                f"{', '.join(required) or 'no'} arguments; call it with those"
            )
        url = _url(operation, arguments)
        tool = requests[f"requests_{operation.verb}"]
        if operation.verb in {"get", "delete"}:
            return str(tool.invoke(url))
        data = {name: value for name, value in arguments.items() if name in operation.in_body}
        sent = data.get("body") if operation.body == "whole" else data
        return str(tool.invoke(json.dumps({"url": url, "data": sent})))

    return run


def _url(operation: _Operation, arguments: Mapping[str, Any]) -> str:
    """The address of a call; every argument is escaped, so that none can leave its place."""
    path, query = operation.path, []
    for name, place in operation.places.items():
        if name not in arguments:
            continue
        value = arguments[name]
        if place == "path":
            path = path.replace(f"{{{name}}}", _segment(name, _plain(value)))
        else:
            query += [(name, _plain(v)) for v in (value if isinstance(value, list) else [value])]
    return f"{operation.base_url}{path}" + (f"?{urlencode(query)}" if query else "")


def _segment(name: str, value: str) -> str:
    """One part of a path; dots alone would lead elsewhere."""
    if not value.strip("."):
        raise ToolException(f"{name}: found {value!r}; expected a name or number; ask for it")
    return quote(value, safe="")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def _toolkit(api: ApiDocument, policy: MediaPolicy) -> dict[str, BaseTool]:
    """The toolkit's request tools, over a wrapper that sends nothing but under the policy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from langchain_community.agent_toolkits.openapi.toolkit import RequestsToolkit
        from langchain_community.utilities.requests import TextRequestsWrapper

    def call(verb: str, url: str, data: Any = None) -> str:
        body = None if data is None else json.dumps(data).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        headers = {"Accept": "application/json", **kind, **api.headers}
        return _told(_sent(verb.upper(), url, policy, body, headers))

    class Guarded(TextRequestsWrapper):
        def get(self, url: str, **_: Any) -> str:
            return call("get", url)

        def delete(self, url: str, **_: Any) -> str:
            return call("delete", url)

        def post(self, url: str, data: Any, **_: Any) -> str:
            return call("post", url, data)

        def put(self, url: str, data: Any, **_: Any) -> str:
            return call("put", url, data)

        def patch(self, url: str, data: Any, **_: Any) -> str:
            return call("patch", url, data)

    kit = RequestsToolkit(requests_wrapper=Guarded(), allow_dangerous_requests=True)
    return {tool.name: tool for tool in kit.get_tools()}


def _sent(
    verb: str, url: str, policy: MediaPolicy, body: bytes | None, headers: Mapping[str, str]
) -> Answer:
    try:
        return send(verb, url, policy, "the call", body=body, headers=headers)
    except MediaError as error:
        # What to pass instead of a medium helps nobody here.
        raise ToolException(
            str(error).partition("; expected")[0].removeprefix("the call: ")
        ) from error


def _told(answer: Answer) -> str:
    """An answer as an LLM reads it: JSON without spaces, cut where it is long."""
    if answer.mime_type.split("/")[0] not in {"text", "application"}:
        return f"The answer is {answer.mime_type} of {len(answer.body)} bytes, no text."
    text = answer.body.decode("utf-8", errors="replace")
    if "json" in answer.mime_type:
        with suppress(ValueError):
            text = json.dumps(json.loads(text), ensure_ascii=False, separators=(", ", ": "))
    cut = text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… (cut)"
    if answer.status >= 300:
        raise ToolException(f"HTTP status {answer.status}: {cut or 'no text'}")
    return cut or f"Done (HTTP status {answer.status})."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_DESCRIPTION else f"{line[: _MAX_DESCRIPTION - 1]}…"
