"""`ibllm doctor`: what is here, what is missing, and whether the model really answers."""

import json
import shutil

import pytest
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from ibllm_tools.cli import app
from ibllm_tools.doctor import examine, packages
from ibllm_tools.doctor.machine import needed_bytes, usable_cores
from ibllm_tools.media import MediaPolicy

METADATA = """Metadata-Version: 2.4
Name: ibllm-tools
Version: 9
Provides-Extra: small
Provides-Extra: large
Requires-Dist: numpy<1
Requires-Dist: pydantic>=2
Requires-Dist: no-such-package-here>=1
Requires-Dist: not-for-this-python; python_version < "3"
Requires-Dist: another-missing-one; extra == "small"
Requires-Dist: pillow; extra == "small"
Requires-Dist: ibllm-tools[small]; extra == "large"
Requires-Dist: pydantic>99; extra == "large"
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installation of this package that requires other things."""
    folder = tmp_path / "ibllm_tools-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(str(tmp_path))


def doctor(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_pocket_is_really_asked():
    done = doctor("--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0
    assert report["problems"] == []
    assert report["trial"]["answer"]
    assert min(report["trial"]["first_s"], report["trial"]["second_s"]) > 0
    assert report["trial"]["peak_bytes"] > report["memory"]["needed"] / 4
    told = doctor().stdout
    assert '"What is this?" about dog.jpg: "' in told
    assert "everything that this model needs is here" in told


def test_a_model_that_cannot_answer_is_status_1(tmp_path):
    folder = save_tiny_model(tmp_path / "tiny")
    assert doctor("--model", folder, "--try").exit_code == 0
    folder = shutil.copytree(folder, tmp_path / "cut")
    weights = folder / "adapter.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-8])  # cut off behind a header that is whole
    fine = doctor("--model", folder)
    assert fine.exit_code == 0  # headers alone do not tell
    done = doctor("--model", folder, "--try")
    assert done.exit_code == 1
    assert "cannot answer: " in done.stdout
    assert "everything that this model needs" not in done.stdout


def test_packages_that_are_missing_or_too_old_come_with_the_next_step(installed):
    report = examine()
    assert report["required"]["pydantic"]["fits"]
    assert "not-for-this-python" not in report["required"]
    wrong, missing = report["problems"]
    assert wrong.startswith("numpy: found ")
    assert wrong.endswith("run `pip install 'numpy<1'`")
    assert missing == "no-such-package-here is not installed; run `pip install ibllm-tools`"


def test_extras_name_all_that_is_missing_and_the_command(installed):
    found = packages.extras()
    assert found["small"]["missing"] == ["another-missing-one"]
    assert found["large"]["missing"] == ["another-missing-one", "pydantic"]
    assert found["large"]["command"] == "pip install 'ibllm-tools[large]'"


def test_in_a_folder_of_sources_extras_are_those_of_the_project():
    found = packages.extras()
    assert {"serve", "mcp", "ui", "chat", "train", "detect"} <= set(found)
    assert "AGPL-3.0" in found["detect"]["note"]


def test_a_model_that_is_not_here_is_not_called_whole():
    done = doctor("--model", "someone/a-model")
    assert done.exit_code == 0
    assert "weights      not here" in done.stdout
    assert "everything but the weights is here" in done.stdout


def test_a_torchvision_of_another_build_is_a_problem(tmp_path, monkeypatch):
    def put(name, version):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
        )

    monkeypatch.syspath_prepend(str(tmp_path))
    put("torch", "2.13.0+cpu")
    put("torchvision", "0.29.1")
    (problem,) = examine()["problems"]
    assert problem.endswith("run `pip uninstall torchvision`")
    shutil.rmtree(tmp_path / "torchvision-0.29.1.dist-info")
    put("torchvision", "0.29.1+cpu")
    assert examine()["problems"] == []


def test_limits_devices_and_programs_are_told():
    report = examine()
    assert report["limits"]["max_bytes"] == MediaPolicy().max_bytes
    assert report["devices"][-1]["device"] == "cpu"
    assert f"{usable_cores()} cores" in report["devices"][-1]["name"]
    assert report["device"] == report["devices"][0]
    assert report["programs"].startswith("none")
    assert set(report["experts"]) == {"detector", "recognizer"}
    told = doctor("--no-try").stdout
    for line in ("600 s", "100 MiB", "a message opens no file", "[mcp]", "detector"):
        assert line in told


def test_what_is_kept_is_named_without_a_password(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "ibllm-tools"
    folder.mkdir()
    (folder / "threads.sqlite").write_bytes(b"x" * 2**20)
    assert f"{folder / 'threads.sqlite'} (1 files, 1 MiB)" in doctor("--no-try").stdout
    monkeypatch.setenv("IBLLM_THREADS", "postgresql://me:secret@host/base")
    told = doctor("--no-try").stdout
    assert "postgresql://host/base" in told
    assert "secret" not in told


def test_half_precision_takes_twice_its_size_on_a_cpu():
    fixed = needed_bytes({}, "cpu")
    assert needed_bytes({"F16": 100}, "cpu") - fixed == 400
    assert needed_bytes({"F32": 100}, "cuda") - fixed == 200
