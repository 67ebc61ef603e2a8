"""Calls APIs that the model was never taught. Served by `langgraph dev`; see README.md.

What may be called is set in the environment of the server:

    IBLLM_APIS          OpenAPI documents, files or addresses, with spaces between
    IBLLM_API_HOSTS     hosts that they may lead to, with spaces between
    IBLLM_MCP_SERVERS   MCP servers, an address or a command a line
"""

import os
import shlex
from datetime import datetime
from zoneinfo import ZoneInfo

from langchain_core.tools import tool

from ibllm_tools.agent_graphs.api_control import create_graph
from ibllm_tools.attachments.threads import data_folder

METRES = {"metres": 1.0, "kilometres": 1000.0, "miles": 1609.344, "feet": 0.3048, "inches": 0.0254}


def tell_time(zone: str) -> str:
    """Tell the time in a zone such as Europe/Berlin."""
    try:
        return datetime.now(ZoneInfo(zone)).strftime("%H:%M")
    except (KeyError, ValueError, OSError):
        return f"There is no time zone {zone!r}; zones are named like Europe/Berlin."


def convert_length(value: float, unit: str, to_unit: str) -> str:
    """Convert a length between metres, kilometres, miles, feet and inches."""
    unknown = [name for name in (unit, to_unit) if name not in METRES]
    if unknown:
        return f"There is no unit {', '.join(unknown)}; there are {', '.join(METRES)}."
    return f"{value * METRES[unit] / METRES[to_unit]:g} {to_unit}"


def keep_note(text: str) -> str:
    """Keep a note in the notes file."""
    path = data_folder() / "notes.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as notes:
        notes.write(f"{text.strip()}\n")
    return f"Noted in {path}."


def _words(variable: str) -> list[str]:
    return os.environ.get(variable, "").split()


def _servers() -> list[str | list[str]]:
    lines = [line.strip() for line in os.environ.get("IBLLM_MCP_SERVERS", "").splitlines()]
    return [line if "://" in line else shlex.split(line) for line in lines if line]


def _reading(function) -> object:
    """A tool that changes nothing, so that nobody needs to be asked."""
    made = tool(function)
    made.metadata = {"reads": True}
    return made


graph = create_graph(
    apis=_words("IBLLM_APIS"),
    allowed_hosts=_words("IBLLM_API_HOSTS"),
    mcp_servers=_servers(),
    tools=[_reading(tell_time), _reading(convert_length), keep_note],
)
