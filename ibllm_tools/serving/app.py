"""The application: routes, and what they have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from threading import Event
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from ibllm_tools import __version__
from ibllm_tools.experts import DEFAULT_RECOGNIZER, has_recognizer
from ibllm_tools.serving.answering import Answers, ServedModel
from ibllm_tools.serving.embedding import EmbeddingModel
from ibllm_tools.serving.gate import Envelope, Gate, Places, RefusedError
from ibllm_tools.serving.leaving import GONE, EventStream, unless_gone
from ibllm_tools.serving.metrics import Metrics
from ibllm_tools.serving.problems import (
    ApiError,
    ClientGoneError,
    about,
    as_validation_error,
    no_model,
)
from ibllm_tools.serving.replies import (
    ChatCompletion,
    ChatCompletionChunk,
    EmbeddingList,
    ErrorReply,
    Model,
    ModelList,
)
from ibllm_tools.serving.settings import ServeSettings
from ibllm_tools.serving.transcription import (
    OPENAI_NAME,
    Granularity,
    Listener,
    ReplyForm,
    written,
)
from ibllm_tools.serving.wire import ChatRequest, EmbeddingRequest

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
TRANSCRIPTIONS, MODELS = "/v1/audio/transcriptions", "/v1/models"
ENDPOINTS = (CHAT, EMBEDDINGS, TRANSCRIPTIONS, MODELS, "/health", "/metrics")
WORKERS = 2  # threads that embed and transcribe; what runs there cannot be stopped at once

_STATUSES = {
    400: "The request does not fit.",
    401: "The API key is missing or wrong.",
    403: "The server is asked for under an unknown name.",
    404: "There is no such model or path.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    429: "The server is busy; `Retry-After` says when to ask again.",
    500: "The server failed.",
    503: "The server is closing.",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": text} for status, text in _STATUSES.items()
}
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "anyOf": [
                {"const": "[DONE]"},
                {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/ChatCompletionChunk"},
                            {"$ref": "#/components/schemas/ErrorReply"},
                        ]
                    },
                },
            ]
        }
    },
}


class Server:
    """What the routes use: the models, the recognizer, the figures, and threads."""

    def __init__(self, settings: ServeSettings) -> None:
        """Take models by their names; nothing is loaded yet."""
        self.settings = settings
        self.chats = {
            name: ServedModel(name, source, settings) for name, source in settings.models.items()
        }
        self.encoders = {
            name: EmbeddingModel(name, source, settings) for name, source in settings.models.items()
        }
        self.listener = Listener(settings)
        self.recognizer = settings.recognizer or DEFAULT_RECOGNIZER
        self.metrics = Metrics(self.chats)
        self.places = Places(settings.max_requests, settings.max_held_bytes)
        self.workers = ThreadPoolExecutor(WORKERS, "ibllm-serve")
        self.began = int(time.time())

    def load(self) -> None:
        """Load the models, so that the first request does not wait for it."""
        for model in self.chats.values():
            model.engine()

    def chat(self, name: str) -> ServedModel:
        """The model of a name.

        Raises:
            ApiError: There is none.
        """
        if name not in self.chats:
            raise no_model(name, list(self.chats))
        return self.chats[name]

    def models(self) -> list[Model]:
        """All names that requests may use."""
        names = list(self.chats)
        if self.settings.recognizer or has_recognizer():
            names.append(OPENAI_NAME)
        return [
            {"id": name, "object": "model", "created": self.began, "owned_by": "ibllm-tools"}
            for name in dict.fromkeys(names)
        ]


def build_app(settings: ServeSettings) -> FastAPI:
    """Build the application; models load when it starts."""
    server = Server(settings)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(server.load)
        yield
        server.workers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="ibllm-tools",
        description="Chat about media, embeddings and transcriptions, as OpenAI's API has them.",
        version=__version__,
        lifespan=running,
        docs_url=None,  # the page would load scripts from elsewhere
        redoc_url=None,
        responses=_PROBLEMS,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if settings.api_keys else [],
    )
    app.state.server = server
    _add_chat(app, server)
    _add_embeddings(app, server)
    _add_transcriptions(app, server)
    _add_overview(app, server)
    _add_handlers(app, server)
    _describe(app, server)
    # The last one is the first that a request meets.
    app.add_middleware(Gate, settings=settings, places=server.places)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(Envelope, metrics=server.metrics, endpoints=frozenset(ENDPOINTS))
    return app


def _describe(app: FastAPI, server: Server) -> None:
    """Let the API's document say which models there are, and what the events hold."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        schemas = document["components"]["schemas"]
        event = TypeAdapter(ChatCompletionChunk).json_schema(
            ref_template="#/components/schemas/{model}"
        )
        schemas |= event.pop("$defs")
        schemas["ChatCompletionChunk"] = event
        for asked in ("ChatRequest", "EmbeddingRequest"):
            schemas[asked]["properties"]["model"]["enum"] = list(server.chats)
        return document

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _add_chat(app: FastAPI, server: Server) -> None:
    @app.post(
        CHAT,
        tags=["chat"],
        response_model=ChatCompletion,
        responses={200: {"content": {"text/event-stream": {"itemSchema": _EVENT}}}},
    )
    async def create_chat_completion(request: Request, asked: ChatRequest) -> Response:
        """Answer a conversation about any mix of media; with `stream`, event by event."""
        began = time.monotonic()
        with about("messages"):
            model = server.chat(asked.model)
            answers = await unless_gone(request.receive, asyncio.to_thread(model.prepare, asked))
            if not asked.stream:
                return JSONResponse(
                    await unless_gone(request.receive, _counted(answers, server.metrics))
                )
            events = _watched(answers, server.metrics)
            first = await unless_gone(request.receive, anext(events))
        server.metrics.first_event(model.name, began)
        return EventStream(first, events, server.metrics.client_left)


async def _counted(answers: Answers, metrics: Metrics) -> ChatCompletion:
    try:
        return await answers.whole()
    finally:
        metrics.answered(answers)


async def _watched(answers: Answers, metrics: Metrics) -> Any:
    try:
        async with aclosing(answers.events()) as events:
            async for event in events:
                yield event
    finally:
        metrics.answered(answers)


def _add_embeddings(app: FastAPI, server: Server) -> None:
    @app.post(EMBEDDINGS, tags=["embeddings"], response_model=EmbeddingList)
    async def create_embeddings(request: Request, asked: EmbeddingRequest) -> Response:
        """Embed texts, media and mixtures in one space."""
        if asked.model not in server.encoders:
            raise no_model(asked.model, list(server.encoders))
        encoder, stop = server.encoders[asked.model], Event()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(server.workers, encoder.embed, asked, stop)
        try:
            with about("input"):
                return JSONResponse(await unless_gone(request.receive, work))
        finally:
            stop.set()


def _add_transcriptions(app: FastAPI, server: Server) -> None:
    @app.post(
        TRANSCRIPTIONS,
        tags=["audio"],
        response_model=dict[str, Any],
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def create_transcription(
        request: Request,
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()],
        language: Annotated[str | None, Form(max_length=40)] = None,
        prompt: Annotated[str | None, Form()] = None,  # noqa: ARG001 - taken as elsewhere
        response_format: Annotated[ReplyForm, Form()] = "json",
        temperature: Annotated[float, Form(ge=0, le=1)] = 0.0,  # noqa: ARG001 - always greedy
        granularities: Annotated[
            list[Granularity] | None, Form(alias="timestamp_granularities[]")
        ] = None,
    ) -> Response:
        """Write down what is said in a recording, or in the sound of a video."""
        names = (OPENAI_NAME, server.recognizer, *server.chats)
        if model not in names:
            raise no_model(model, names)
        data, name = await file.read(), (file.filename or "file")[:200]
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(
            server.workers, server.listener.transcribe, data, name, language or None
        )
        with about("file"):
            found, length_s = await unless_gone(request.receive, work)
        text, kind = written(found, length_s, response_format, granularities or ())
        return Response(text, headers={"content-type": kind})


def _add_overview(app: FastAPI, server: Server) -> None:
    @app.get(MODELS, tags=["models"])
    async def list_models() -> ModelList:
        """List the models that requests may name."""
        return {"object": "list", "data": server.models()}

    @app.get(f"{MODELS}/{{name:path}}", tags=["models"])
    async def retrieve_model(name: str) -> Model:
        """Describe one model."""
        for model in server.models():
            if model["id"] == name:
                return model
        raise no_model(name, [model["id"] for model in server.models()])

    @app.get("/health", tags=["server"])
    async def check_health() -> dict[str, Any]:
        """Say that the server is up, and how busy it is; no key is asked for this."""
        return {
            "status": "ok",
            "version": __version__,
            "models": list(server.chats),
            "requests_open": server.places.n_requests,
        }

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def show_metrics() -> Response:
        """Give the figures in Prometheus's text format."""
        return Response(server.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


def _add_handlers(app: FastAPI, server: Server) -> None:
    @app.exception_handler(RequestValidationError)
    async def tell_invalid(request: Request, error: RequestValidationError) -> Response:
        kind = request.headers.get("content-type", "")
        if isinstance(error.body, bytes) and "json" not in kind:
            text = f"found a body of type {kind[:100]!r}; expected application/json"
            return _reply(ApiError(415, text, code="unsupported_media_type"))
        return _reply(as_validation_error(error.errors()))

    @app.exception_handler(HTTPException)
    async def tell_http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, RefusedError):
            return _reply(error.error)
        text = str(error.detail)
        if error.status_code in {404, 405}:
            text = f"{text}: {request.method} {request.url.path[:200]}"
        return _reply(ApiError(error.status_code, text, headers=error.headers))

    @app.exception_handler(ClientGoneError)
    async def end_quietly(_: Request, __: ClientGoneError) -> Response:
        server.metrics.client_left()
        return Response(status_code=GONE)


def _reply(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), error.status, error.headers)
