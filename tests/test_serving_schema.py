"""schemathesis reads the OpenAPI document, and sends what it allows and what it does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving_server import PATIENCE_S, get, serving
from tiny_model import save_tiny_model

pytest.importorskip("schemathesis", reason="schemathesis makes the requests")

pytestmark = pytest.mark.enable_socket

PROGRAM = Path(sys.executable).parent / "st"
ABOUT_REPLIES = (
    "not_a_server_error,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,status_code_conformance"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), n_context=4096)
    with serving(models={"tiny": str(folder)}) as found:
        yield found


def run(address, folder, *options):
    program = str(PROGRAM) if PROGRAM.exists() else shutil.which("st")
    command = [program, "run", f"{address}/openapi.json", "--no-color"]
    command += [f"--request-timeout={PATIENCE_S}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def n_answered(address):
    """How many requests of each endpoint got an answer."""
    text = get(f"{address}/metrics").text
    lines = [line for line in text.splitlines() if 'status="200"' in line and "_total" in line]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_random_requests_get_no_server_error_and_what_the_document_says(address, tmp_path):
    shown = run(
        address,
        tmp_path,
        "--phases=fuzzing",
        "--max-examples=10",
        "--seed=6",
        f"--checks={ABOUT_REPLIES}",
        "--no-shrink",
    )
    assert "Tested: 7" in shown
    found = n_answered(address)
    answered = sum(found.get(path, 0) for path in ("/v1/chat/completions", "/v1/embeddings"))
    assert answered > 0  # the fuzz comes as far as answers


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_random_requests_get_no_server_error(address, tmp_path):
    run(
        address,
        tmp_path,
        "--phases=coverage,fuzzing,stateful",
        "--max-examples=150",
        "--seed=7",
        f"--checks={ABOUT_REPLIES}",
        "--no-shrink",
    )
