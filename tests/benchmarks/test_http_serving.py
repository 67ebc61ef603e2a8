"""`ibllm serve` under load: many clients at once against one after another, over HTTP.

Run: `pytest tests/benchmarks/test_http_serving.py -m benchmark -s --force-enable-socket`.
The server is a process of its own on one thread of torch with pocket's weights; the clients stream
from this process. Sampled at temperature 1, so that few answers end early. Rates are by the
processor's time of the server, which an idle core would need; times to the first text by the clock.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

N_TOKENS = 64
AT_ONCE, MANY, ANSWERS = 16, 64, 8
WANTED_GAIN = 3.0


@pytest.fixture(scope="module")
def server():
    """The address, and the process's number."""
    command = [sys.executable, "-m", "ibllm_tools.cli", "serve", "--port=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    told = ""
    while "Ctrl+C" not in told:
        told += program.stderr.readline()
    yield re.search(r"http://[\d.:]+", told)[0], program.pid
    program.terminate()
    program.wait()


async def answer(client, number):
    """Stream one answer; returns its tokens and the seconds to its first text."""
    began, first, n_tokens = time.perf_counter(), None, 0
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": f"Tell me a story of {number} dogs."}],
        "temperature": 1.0,
        "seed": number,
        "max_tokens": N_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["choices"] and event["choices"][0]["delta"].get("content") and first is None:
                first = time.perf_counter() - began
            if event["usage"]:
                n_tokens = event["usage"]["completion_tokens"]
    return n_tokens, first or time.perf_counter() - began


def processor_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(server, n_answers, n_at_once):
    """Answers with so many clients; returns tokens per second and the times to the first text."""
    address, pid = server
    places = asyncio.Semaphore(n_at_once)
    limits = httpx.Limits(max_connections=n_at_once)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:

        async def one(number):
            async with places:
                return await answer(client, number)

        began = processor_s(pid)
        found = await asyncio.gather(*(one(number) for number in range(n_answers)))
        seconds = processor_s(pid) - began
    return sum(n for n, _ in found) / seconds, [first for _, first in found]


@pytest.mark.benchmark
@pytest.mark.timeout(900)
async def test_many_clients_at_once(server):
    await load(server, 4, 4)
    rates, firsts = {}, {}
    for n_at_once, n_answers in ((1, ANSWERS), (AT_ONCE, 4 * ANSWERS), (MANY, 8 * ANSWERS)):
        rates[n_at_once], firsts[n_at_once] = await load(server, n_answers, n_at_once)
        late = statistics.quantiles(firsts[n_at_once], n=20)[-1]
        middle = statistics.median(firsts[n_at_once])
        print(
            f"\n| {n_at_once} | {rates[n_at_once]:.0f} | {rates[n_at_once] / rates[1]:.2f} "
            f"| {1000 * middle:.0f} | {1000 * late:.0f} |"
        )
    assert rates[AT_ONCE] >= WANTED_GAIN * rates[1]
