"""Run by `test_train_stages_sharding.py` in two processes: a model sharded by FSDP on a CPU.

Sharding happens as accelerate's FSDP2 does it (each decoder layer, then the root); accelerate
itself offers FSDP on accelerators only.
"""

import io
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ibllm_tools.train.stages import sharding
from ibllm_tools.train.stages.config import make_config
from ibllm_tools.train.stages.start import open_start


def build(settings):
    start = open_start(make_config(settings))
    return start.model.train(), start


def optimizer_of(model):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-3, foreach=False)


def step(model, optimizer, rows, scale):
    output = model(**rows, late=True, use_cache=False)
    (output.loss * scale).backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(output.loss.detach())


def batch(number, joint):
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(5, 60, (2, 8), generator=generator)
    shown = torch.tensor([bool(number % 2), False])  # some processes see no media
    features = torch.randn(2, joint, generator=generator)
    return {"input_ids": ids, "labels": ids, "features": features, "has_media": shown}


def reread(state):
    """As from a file: a state in memory would share its step counts."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def shard(model):
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.llm.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def main(settings, out):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model, start = build(settings)
    names, joint = set(start.trainable), model.config.joint_dim
    model = shard(model)
    optimizer = optimizer_of(model)
    curve = [step(model, optimizer, batch(2 * n + rank, joint), 1.0) for n in range(3)]
    state, moments = sharding.gather_trainable(model), sharding.gather_optimizer(model, optimizer)
    if rank == 0:
        assert state.keys() == names
        assert {type(x) for x in state.values()} == {torch.Tensor}
        torch.save(state, out / "state.pt")
    other, _ = build(settings)
    other = shard(other)
    fresh = optimizer_of(other)
    sharding.give_out_trainable(other, state)
    sharding.give_out_optimizer(other, fresh, reread(moments))
    following = [
        step(m, o, batch(8 + rank, joint), 1.0) for m, o in ((model, optimizer), (other, fresh))
    ]
    last = [sharding.gather_trainable(m) for m in (model, other)]
    if rank == 0:
        assert all(torch.equal(last[0][name], last[1][name]) for name in names)
        found = {"curve": curve, "following": following}
        (out / "found.json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
