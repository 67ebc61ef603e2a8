"""What Prometheus reads at `/metrics`: requests, tokens, times, and how full the engine is."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ibllm_tools.serving.answering import Answers, ServedModel

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self, models: Mapping[str, ServedModel]) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self._requests = Counter(
            "ibllm_requests", "Requests answered.", ["endpoint", "status"], registry=own
        )
        self._seconds = Histogram(
            "ibllm_request_seconds",
            "Time of a request.",
            ["endpoint"],
            buckets=SECONDS,
            registry=own,
        )
        self._open = Gauge("ibllm_requests_open", "Requests under way.", registry=own)
        self._first = Histogram(
            "ibllm_first_token_seconds",
            "Time to the first event of a streamed answer.",
            ["model"],
            buckets=SECONDS,
            registry=own,
        )
        self._tokens = Counter("ibllm_tokens", "Tokens.", ["model", "kind"], registry=own)
        self._media = Counter(
            "ibllm_media", "Media in questions.", ["model", "modality"], registry=own
        )
        self._left = Counter(
            "ibllm_clients_left", "Clients that left before the end.", registry=own
        )
        answers = Gauge(
            "ibllm_answers_open",
            "Answers that hold a place in the engine.",
            ["model"],
            registry=own,
        )
        for name, model in models.items():
            answers.labels(name).set_function(partial(getattr, model, "n_open"))

    def begin(self) -> float:
        """A request arrives; returns the time."""
        self._open.inc()
        return time.monotonic()

    def end(self, endpoint: str, status: int, began: float) -> None:
        """A request is answered."""
        self._open.dec()
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(time.monotonic() - began)

    def first_event(self, model: str, began: float) -> None:
        """The first event of a stream is there."""
        self._first.labels(model).observe(time.monotonic() - began)

    def answered(self, answers: Answers) -> None:
        """Answers have ended, or been left; count what they took."""
        took = answers.took
        self._tokens.labels(answers.model, "prompt").inc(took.n_prompt)
        self._tokens.labels(answers.model, "completion").inc(took.n_completion)
        for modality, count in answers.requests[0].media_counts.items():
            self._media.labels(answers.model, modality).inc(count)

    def client_left(self) -> None:
        """A client has left before its answer was complete."""
        self._left.inc()

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)
