"""What FSDP needs of us: values projected in the layers, trained weights gathered and given out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stage_fixtures import recipe, write_features
from stage_sharding_worker import batch, build, optimizer_of
from tiny_model import JOINT, save_tiny_model

from ibllm_tools.model import ImageBindLLM

pytest.importorskip("accelerate")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharding")
    model = save_tiny_model(folder / "model")
    store = write_features(folder / "store", model, 4)
    return recipe("instruct", model, folder / "out", store, tune_bind=True, lora_rank=4)


def test_late_values_are_the_early_ones(settings):
    model = ImageBindLLM.from_pretrained(settings["model"])
    rows = batch(1, JOINT)
    rows["has_media"] = torch.tensor([True, False])
    outputs, gradients = [], []
    for late in (False, True):
        model.zero_grad()
        output = model(**rows, late=late)
        output.loss.backward()
        outputs.append(output.logits.detach())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()
                          if p.grad is not None})  # fmt: skip
    assert torch.allclose(*outputs, atol=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_late_values_take_part_without_media(settings):
    model = ImageBindLLM.from_pretrained(settings["model"])
    rows = batch(0, JOINT)
    model(**rows, late=True).loss.backward()
    assert model.gates.grad is not None
    assert not model.gates.grad.any()
    plain = model(input_ids=rows["input_ids"]).logits
    assert torch.allclose(model(**rows, late=True).logits, plain, atol=1e-6)


def test_a_sharded_model_trains_and_resumes_as_a_whole_one(settings, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
               "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0",
               str(ROOT / "tests" / "stage_sharding_worker.py"),
               json.dumps(settings), str(tmp_path)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["following"][0] == found["following"][1]
    model, start = build(settings)
    optimizer = optimizer_of(model)
    curve = []
    for number in range(3):
        both = [model(**batch(2 * number + rank, JOINT), late=True).loss for rank in (0, 1)]
        (sum(both) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(float(both[0].detach()))
    assert found["curve"] == pytest.approx(curve, rel=1e-4)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for name, parameter in start.trainable.items():
        assert torch.allclose(state[name], parameter, atol=1e-4), name
