"""Cold start of `ibllm ask`: seconds to the first token, and peak memory, in a fresh process.

Run: `python -m pytest tests/benchmarks/test_cold_start.py -m benchmark -s` on an idle machine.
What importing torch and the parts of transformers that every Llama needs takes is measured in
processes of its own, in turn with the others; the rest of the time is ours.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PHOTO = ROOT / "ibllm_tools" / "demo_media" / "dog.jpg"
TURNS = 5
WANTED_S, WANTED_OURS_S, WANTED_MIB = 6.0, 1.0, 1024.0
IMPORTS = "import torch; from transformers import LlamaForCausalLM, PreTrainedTokenizerFast"
MEASURED = (
    "import resource, sys; from ibllm_tools.cli import main\n"
    "try: main()\n"
    "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
)


def run(code, *arguments):
    """Run Python code; return seconds to the first byte of output and the last line of stderr."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    process.stdout.read(1)
    seconds = time.perf_counter() - started
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return seconds, (errors.decode().splitlines() or [""])[-1]


@pytest.mark.benchmark
@pytest.mark.timeout(300)
def test_cold_start():
    ask = ("ask", "What is in the photo?", PHOTO)
    run(MEASURED, *ask)  # reads the files into the system's cache
    asked, imported = [], []
    for _ in range(TURNS):
        imported.append(run(f"{IMPORTS}; print(1)")[0])
        asked.append(run(MEASURED, *ask))
    first_s = statistics.median(seconds for seconds, _ in asked)
    imports_s = statistics.median(imported)
    peak_mib = max(int(kib) for _, kib in asked) / 1024
    print(
        f"\ncold start to first token {first_s:.2f} s (of which torch and transformers "
        f"{imports_s:.2f} s, ours {first_s - imports_s:.2f} s), peak memory {peak_mib:.0f} MiB"
    )
    assert first_s <= WANTED_S
    assert first_s - imports_s <= WANTED_OURS_S
    assert peak_mib <= WANTED_MIB
