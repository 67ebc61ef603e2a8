"""A run that is killed, and a run in two processes, end where an undisturbed one ends.

Each run is a process of its own, started from the command line.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from stage_fixtures import recipe, write_features
from tiny_model import save_tiny_model

from ibllm_tools.train.stages.checkpoints import is_whole, list_checkpoints, newest_whole, prune

pytest.importorskip("accelerate")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A model folder and a store, some of whose rows are text only."""
    folder = tmp_path_factory.mktemp("ground")
    model = save_tiny_model(folder / "model")
    return model, write_features(folder / "store", model, 24, text_only=6)


def begin(launcher, ground, out, **settings):
    """Start `ibllm train instruct` with both parts trained, through a recipe."""
    model, store = ground
    values = {"tune_bind": True, "lora_rank": 4, "steps": 12, "save_every": 2, "keep": 9}
    stage = settings.pop("stage", "instruct")
    resume = ["--resume"] if settings.pop("resume", False) else []
    values |= {"text_only": "none"} | settings
    path = out.with_suffix(".yaml")
    text = yaml.safe_dump(recipe(stage, model, out, store, **values))
    path.write_text(text, encoding="utf-8")
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = os.environ | threads | {"PYTHONPATH": str(ROOT)}
    command = [*launcher, "-m", "ibllm_tools.cli", "train", stage, "--config", str(path), *resume]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def finish(process):
    out, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    return out + error


def losses(out):
    log = json.loads((out / "training.json").read_text(encoding="utf-8"))["log"]
    return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}


def counts(out):
    return json.loads((out / "training.json").read_text(encoding="utf-8"))["rows"]


def adapter(out):
    return load_file(out / "adapter.safetensors")


def test_a_killed_run_ends_with_the_same_curve_and_weights(ground, tmp_path):
    finish(begin([sys.executable], ground, tmp_path / "whole"))
    killed = begin([sys.executable], ground, tmp_path / "killed")
    while len(list_checkpoints(tmp_path / "killed")) < 3 and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "training.json").exists()
    newest = newest_whole(tmp_path / "killed")
    step = int(newest.name.rpartition("-")[2])
    half = tmp_path / "killed" / "checkpoint-10"  # as if killed while it was written
    half.mkdir(exist_ok=True)
    (half / "done.json").unlink(missing_ok=True)
    (half / "adapter.safetensors").write_bytes(b"half")
    said = finish(begin([sys.executable], ground, tmp_path / "killed", resume=True))
    assert f"going on from {newest}" in said or step == 10
    assert "checkpoint-10" in said
    whole, again = adapter(tmp_path / "whole"), adapter(tmp_path / "killed")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert counts(tmp_path / "whole") == counts(tmp_path / "killed")


TWO = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
       "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
       "--main_process_port", "0"]  # fmt: skip


@pytest.mark.parametrize("stage", [pytest.param("bind", marks=pytest.mark.slow), "instruct"])
def test_two_processes_walk_the_curve_of_one(ground, tmp_path, stage):
    """Gloo on a CPU; one process accumulates twice as often. Some batches have no media."""
    pair = begin(TWO, ground, tmp_path / "pair", stage=stage, accumulate=1)
    finish(pair)
    alone = [sys.executable]
    finish(begin(alone, ground, tmp_path / "alone", stage=stage, accumulate=2))
    one, two = losses(tmp_path / "alone"), losses(tmp_path / "pair")
    assert one.keys() == two.keys()
    assert [two[step] for step in one] == pytest.approx(list(one.values()), rel=1e-4)
    one, two = adapter(tmp_path / "alone"), adapter(tmp_path / "pair")
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    assert counts(tmp_path / "alone") == counts(tmp_path / "pair")
    assert counts(tmp_path / "pair")["rows"] == 12 * 4


def test_only_whole_checkpoints_count(tmp_path):
    for step in (2, 4, 6):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter.safetensors").write_bytes(b"weights")
        if step != 6:
            (folder / "done.json").write_text(
                json.dumps({"files": {"adapter.safetensors": 7}}), encoding="utf-8"
            )
    assert newest_whole(tmp_path).name == "checkpoint-4"
    (tmp_path / "checkpoint-4" / "adapter.safetensors").write_bytes(b"wei")
    assert newest_whole(tmp_path).name == "checkpoint-2"
    (tmp_path / "checkpoint-4" / "done.json").write_text("{", encoding="utf-8")
    assert not is_whole(tmp_path / "checkpoint-4")
    prune(tmp_path, 1)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "checkpoint-2", "checkpoint-4", "checkpoint-6",
    ]  # fmt: skip
