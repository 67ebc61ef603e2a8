"""The one media policy: how large a medium may be, and what a message may open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

MIB = 2**20

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class MediaPolicy(BaseModel):
    """Limits on every medium, and the folders and hosts that a message may name.

    By default a message opens nothing: only `base64` and `data:` carry bytes. A folder or a host
    must be listed before a path or URL in a message is followed.

    Attributes:
        max_bytes: Most bytes of one encoded medium.
        max_pixels: Most pixels of one picture or video frame.
        max_seconds: Longest sound or video.
        max_points: Most points, vertices or faces of a 3D shape; also most IMU samples.
        max_chars: Longest text to be sensed.
        decode_timeout_s: Longest time that decoding one sound or video may take.
        allowed_dirs: Folders whose files a message may name. Links are resolved first.
        allowed_hosts: Hosts that a URL in a message may name: `example.com`, `*.example.com`,
            or `example.com:8443` for another port than 80 and 443.
        allow_private_addresses: Let a listed host resolve to a private, loopback, link-local or
            reserved address. Leave this off unless the host is yours.
        max_redirects: Most redirects to follow; each target must be a listed host too.
        connect_timeout_s: Longest wait for a name, a connection, or the next bytes.
        fetch_timeout_s: Longest time for one whole download.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: Count = 100 * MIB
    max_pixels: Count = 50_000_000
    max_seconds: Positive = 600.0
    max_points: Count = 2_000_000
    max_chars: Count = 20_000
    decode_timeout_s: Positive = 30.0
    allowed_dirs: tuple[Path, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_private_addresses: bool = False
    max_redirects: Annotated[int, Field(ge=0)] = 3
    connect_timeout_s: Positive = 5.0
    fetch_timeout_s: Positive = 20.0

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or "/" in host or "@" in host or host in {"*", "*."}:
                raise ValueError(
                    f"{host!r} is no host; write `example.com`, `*.example.com` or "
                    "`example.com:8443`"
                )
            bare_ipv6 = host.count(":") > 1 and "[" not in host
            # Reading the port raises ValueError where it is none.
            _ = urlsplit(f"//[{host}]" if bare_ipv6 else f"//{host}").port
        return tuple(host.lower() for host in hosts)
