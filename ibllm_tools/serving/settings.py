"""What is served, to whom, and within which limits."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ibllm_tools.checkpoints import POCKET
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import MediaPolicy

API_KEYS = ("IBLLM_API_KEY", "IBLLM_API_KEYS")
"""Variables of the environment with one key, or with several between commas."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
MIB = 2**20

Count = Annotated[int, Field(ge=1)]


class ServeSettings(BaseModel):
    """What `ibllm serve` serves.

    Attributes:
        models: Name in the API -> "pocket", a model folder, or a hub id. Clients can name no other.
        recognizer: Checkpoint that transcribes speech; None is the default one.
        device: As in torch; None chooses.
        dtype: Precision; None chooses.
        policy: Limits on media, and the hosts whose URLs are followed; by default none.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        api_keys: Of which clients must send one; empty asks for none.
        is_forced: Listen at an address that others can reach, without a key.
        host_names: Names under which clients may ask for this server where it has no key, beside
            those of the loopback address; they keep web pages from reaching it by a name of theirs.
        cors_origins: Origins of web pages whose scripts may use the server; "*" is all.
        max_body_bytes: Most bytes of one request.
        max_held_bytes: Most bytes of the requests that are under way together.
        max_requests: Most requests under way, waiting ones included; more get status 429.
        body_timeout_s: Longest time that a request's body may take to arrive.
        timeout_s: Longest time for one answer; it then ends with what it has.
        shutdown_s: How long running answers have when the server is told to stop.
        logs_access: Write a line per request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    models: Mapping[str, str] = {POCKET: POCKET}
    recognizer: str | None = None
    device: str | None = None
    dtype: str | None = None
    policy: MediaPolicy = Field(default_factory=MediaPolicy)
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    api_keys: tuple[SecretStr, ...] = ()
    is_forced: bool = False
    host_names: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: Count = 50 * MIB
    max_held_bytes: Count = 1024 * MIB
    max_requests: Count = 256
    body_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    shutdown_s: Annotated[float, Field(gt=0)] = 60.0
    logs_access: bool = False

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: Mapping[str, str]) -> Mapping[str, str]:
        if not models or not all(name and source for name, source in models.items()):
            raise ValueError("models needs a name and a model for each entry, and at least one")
        return dict(models)

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(key.get_secret_value().strip() for key in keys):
            raise ValueError("an API key is empty; leave it out, or set a long random text")
        return keys

    def check_reach(self) -> None:
        """Refuse to let others reach a server without a key.

        Raises:
            ConfigurationError: The address is not a loopback one, no key is set, and nothing
                forces it.
        """
        if is_loopback(self.host) or self.api_keys or self.is_forced:
            return
        raise ConfigurationError(
            f"found host {self.host} and no API key, so that everybody on the network could use "
            f"this server; set {API_KEYS[0]} in the environment, or listen at 127.0.0.1, or force "
            "it with --no-key"
        )

    @property
    def checks_host_names(self) -> bool:
        """Whether requests must name a known host: a web page may else reach a loopback server."""
        return not self.api_keys and is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def environment_keys(environment: Mapping[str, str] | None = None) -> tuple[SecretStr, ...]:
    """Read the API keys of the environment; see `API_KEYS`."""
    held = os.environ if environment is None else environment
    found = [part.strip() for name in API_KEYS for part in held.get(name, "").split(",")]
    return tuple(SecretStr(key) for key in dict.fromkeys(found) if key)
