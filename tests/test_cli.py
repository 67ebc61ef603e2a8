"""The command line `ibllm`, run as a person runs it."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from langchain_core.messages import HumanMessage
from safetensors import safe_open
from test_chat import picture, sound
from tiny_model import save_tiny_model

from ibllm_tools import (
    ChatImageBindLLM,
    ConfigurationError,
    IbllmError,
    ImageBindEmbeddings,
    MediaError,
)
from ibllm_tools.cli import main
from ibllm_tools.cli.files import read_media, split_file

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    for name, medium in {"a.png": picture(), "b.wav": sound(), "odd@0.5:x.png": picture()}.items():
        (place / name).write_bytes(base64.b64decode(medium["base64"]))
    return place


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ibllm(files, monkeypatch, capsys):
    """Run a command in this process, which has torch already."""
    monkeypatch.chdir(files)

    def run(*arguments, stdin=b""):
        monkeypatch.setattr("sys.argv", ["ibllm", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return run


def run_apart(*arguments, cwd=ROOT, **variables):
    """Run a command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "ibllm_tools.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        cwd=cwd,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def shown(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def complaint(done, status=1):
    """The one line on stderr of a command that failed."""
    text = done.stderr
    assert done.returncode == status, text
    assert text.count("\n") == 1
    assert text.startswith("ibllm: ")
    assert "Traceback" not in text
    return text


def test_ask_prints_the_answer(ibllm, folder):
    answer = shown(ibllm("ask", "hi", "a.png@0.5", "b.wav", "--model", folder, "--max-tokens", 9))
    chat = ChatImageBindLLM(model=folder, max_tokens=9)
    expected = chat.invoke([HumanMessage(["hi", picture(weight=0.5), sound()])])
    assert answer == f"{expected.text}\n"


def test_ask_tells_a_program_everything(ibllm, folder):
    options = ("--model", folder, "--max-tokens", 9, "--json")
    report = json.loads(shown(ibllm("ask", "what?", "-", *options, stdin=_png())))
    assert report["question"] == "what?"
    assert len(report["answer"]) == report["usage"]["output_tokens"] == 9
    assert report["media"] == [{"name": "standard input", "modality": "image", "weight": 1.0}]
    assert report["usage"]["media"] == 1
    assert report["finish_reason"] == "length"
    assert report["model"] == str(folder)
    assert 0 < report["timings"]["first_token_s"] < report["timings"]["total_s"]
    assert report["timings"]["tokens_per_s"] > 0


def _png():
    return base64.b64decode(picture()["base64"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "hi", "missing.png"], "missing.png"),
        (["ask", "hi", "a.png@zero"], "expected a number above 0 after the last @"),
        (["ask", "hi", "a.png@0"], "weight"),
        (["ask", "hi", "a.png", "--modality", "smell"], "smell"),
        (["ask", "hi", "a.png", "b.wav", "a.png", *["--modality", "image"] * 2], "2 times"),
        (["ask", "hi", "--model", "nowhere"], "no folder here and no hub id"),
        (["ask", "hi", "--device", "warp:9"], "warp:9"),
        (["embed", "a.png", "--out", "missing/x.npy"], "missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_failure_is_one_line_and_status_1(ibllm, folder, arguments, words):
    model = [] if "--model" in arguments else ["--model", folder]
    assert words in complaint(ibllm(*arguments, *model))


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "hi", "--temperature", "-1"],
        ["ask", "hi", "--max-tokens", "0"],
        ["ask", "hi", "--colour"],
        ["embed"],
        ["embed", "--text", "dog", "--out", "x.txt"],
        ["sing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(ibllm, arguments):
    done = ibllm(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def imported(done):
    """The packages that a process with PYTHONPROFILEIMPORTTIME imported."""
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_help_loads_no_torch():
    done = run_apart("--help", PYTHONPROFILEIMPORTTIME="1")
    names = ("ask", "embed", "convert", "train", "doctor", "demo")
    assert all(name in done.stdout for name in names)
    unwanted = {"torch", "transformers", "langchain_core", "numpy", "PIL", "av"}
    assert not imported(done) & unwanted


def test_ask_imports_only_what_it_needs(folder, files):
    options = ("--model", folder, "--max-tokens", 9)
    done = run_apart("ask", "hi", "a.png", *options, cwd=files, PYTHONPROFILEIMPORTTIME="1")
    chat = ChatImageBindLLM(model=folder, max_tokens=9)
    assert done.stdout == f"{chat.invoke([HumanMessage(['hi', picture()])]).text}\n"
    assert "torch" in imported(done)
    unwanted = {"langchain", "langchain_core", "pandas", "matplotlib", "faiss", "langgraph"}
    assert not imported(done) & unwanted


@pytest.fixture(scope="module")
def vectors(folder):
    embeddings = ImageBindEmbeddings(model=folder)
    return embeddings.embed_media([picture(), sound()]) + embeddings.embed_documents(["dog"])


ROWS, NAMES = ("a.png", "b.wav", "--text", "dog"), ["a.png", "b.wav", "dog"]


def test_embed_prints_vectors(ibllm, folder, vectors):
    lines = shown(ibllm("embed", *ROWS, "--model", folder)).splitlines()
    assert [line.split("\t")[0] for line in lines] == NAMES
    numbers = [[float(number) for number in line.split("\t")[1].split()] for line in lines]
    assert np.allclose(numbers, vectors, atol=1e-5)
    listed = json.loads(shown(ibllm("embed", *ROWS, "--model", folder, "--json")))["embeddings"]
    assert [entry["name"] for entry in listed] == NAMES
    assert np.allclose([entry["vector"] for entry in listed], vectors, atol=1e-5)


def test_embed_writes_arrays(ibllm, folder, files, vectors):
    shown(ibllm("embed", *ROWS, "--model", folder, "--out", "v.npy"))
    assert np.allclose(np.load(files / "v.npy"), vectors, atol=1e-5)
    shown(ibllm("embed", *ROWS, "--model", folder, "--out", "v.safetensors"))
    with safe_open(files / "v.safetensors", "numpy") as file:
        assert np.allclose(file.get_tensor("embeddings"), vectors, atol=1e-5)
        assert json.loads(file.metadata()["names"]) == NAMES


def test_embed_mixes_files(ibllm, folder):
    mixed = json.loads(
        shown(ibllm("embed", "a.png@0.2", "b.wav@0.8", "--mix", "--json", "--model", folder))
    )
    [entry] = mixed["embeddings"]
    embeddings = ImageBindEmbeddings(model=folder)
    expected = embeddings.embed_media([[(picture(), 0.2), (sound(), 0.8)]])
    assert np.allclose(entry["vector"], expected[0], atol=1e-5)
    assert entry["name"] == "a.png + b.wav"


@pytest.mark.parametrize(
    ("spec", "path", "modality", "weight"),
    [
        ("a.png", "a.png", None, 1.0),
        ("a.png@0.5", "a.png", None, 0.5),
        ("a.png:depth", "a.png", "depth", 1.0),
        ("a.png:depth@2", "a.png", "depth", 2.0),
        ("odd@0.5:x.png", "odd@0.5:x.png", None, 1.0),
        ("odd@0.5:x.png@0.5", "odd@0.5:x.png", None, 0.5),
        ("odd@0.5:x.png:thermal@0.5", "odd@0.5:x.png", "thermal", 0.5),
        ("c:/photo.png@1e-1", "c:/photo.png", None, 0.1),
        ("-:depth@0.5", "-", "depth", 0.5),
    ],
)
def test_a_file_may_say_its_modality_and_weight(monkeypatch, files, spec, path, modality, weight):
    monkeypatch.chdir(files)
    assert split_file(spec) == (path, modality, weight)


def test_modalities_stand_for_all_files_or_for_each(monkeypatch, files):
    monkeypatch.chdir(files)

    def sensed(specs, modalities):
        return [(m.modality, m.weight) for m in read_media(specs, modalities)]

    assert sensed(["a.png", "a.png@2"], ["depth"]) == [("depth", 1.0), ("depth", 2.0)]
    assert sensed(["a.png", "b.wav"], ["thermal", "audio"]) == [("thermal", 1.0), ("audio", 1.0)]
    assert sensed(["a.png:image", "a.png"], ["depth"]) == [("image", 1.0), ("depth", 1.0)]
    assert sensed([], []) == []
    with pytest.raises(ConfigurationError, match="2 times --modality for 3 files"):
        read_media(["a.png"] * 3, ["depth", "image"])
    with pytest.raises(MediaError):
        read_media(["b.wav"], ["image"])


def test_doctor_says_whether_a_model_fits_here(ibllm, folder):
    report = json.loads(shown(ibllm("doctor", "--model", folder, "--json")))
    assert report["problems"] == []
    assert report["packages"]["torch"]
    trunks = ["audio", "depth", "imu", "point", "text", "thermal", "vision"]
    assert report["model"]["trunks"] == trunks
    assert report["model"]["files"]["adapter.safetensors"] > 0
    assert 0 < report["memory"]["needed"] < report["memory"]["free"]
    text = shown(ibllm("doctor", "--model", folder))
    assert "everything that this model needs is here" in text


def test_doctor_names_what_is_missing(ibllm, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = ibllm("doctor", "--model", tmp_path)
    assert done.returncode == 1
    assert "holds no weights" in done.stdout
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 20)
    done = ibllm("doctor", "--model", tmp_path)
    assert done.returncode == 1
    assert "no whole safetensors file" in done.stdout


def test_a_reader_that_goes_away_causes_no_traceback(folder, files):
    command = f"{sys.executable} -m ibllm_tools.cli embed a.png --model {folder} | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # the shell makes the pipe that breaks
        ["/bin/sh", "-c", command], capture_output=True, env=environment, cwd=files, check=False
    )
    assert done.stderr == b""


def test_a_broken_model_is_one_line_unless_more_is_asked_for(ibllm, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    complaint(ibllm("ask", "hi", "--model", tmp_path))
    monkeypatch.setenv("IBLLM_DEBUG", "1")
    monkeypatch.setattr("sys.argv", ["ibllm", "ask", "hi", "--model", str(tmp_path)])
    with pytest.raises(IbllmError):
        main()


def test_the_version_is_shown(ibllm):
    from ibllm_tools import __version__

    assert shown(ibllm("--version")).strip() == __version__
