"""Stage 1 from stored features, with the encoder in the loop, and as the released recipe does it.

Run: `pytest tests/benchmarks/test_training_speed.py -m benchmark -s -k pocket` (or `-k huge`: the
vision trunk of imagebind_huge with random weights, some minutes). One thread; the processor's
time is counted, so that a busy machine disturbs little; the three loops take turns in one
process. What is asserted is an order, never a time; the ratios are printed.

Each loop trains the bind network, gates and prefix queries (forward through the whole LLM,
backward down to the lowest gate) on the same photos and conversations:

* features: rows of a feature store, padded to the longest of the batch;
* in the loop: photos decoded, preprocessed and encoded in every step, the same padding;
* recipe: as before, padded to 512 tokens, batch 4, as the released training runs.

`estimate` counts multiplications where a 7 B LLM cannot be run here.
"""

import statistics
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_tools.data.store import EncoderIdentity, FeatureStore, FeatureWriter, StoredMedium
from ibllm_tools.data.store import StoredRow as Row
from ibllm_tools.encoder import ImageBind, ImageBindConfig, VisionConfig
from ibllm_tools.encoder.build import build_trunk
from ibllm_tools.media import Media, load
from ibllm_tools.model import ImageBindLLM
from ibllm_tools.preprocess import MediaBatch, PreprocessConfig

MEDIA = Path(__file__).parent.parent.parent / "ibllm_tools" / "demo_media"
RECIPE_TOKENS, RECIPE_BATCH = 512, 4
ROW_TOKENS = (28, 60)
VOCABULARY = 1000
WANTED = 20


@dataclass(frozen=True)
class Size:
    """What is trained, and how long each loop is watched."""

    vision: VisionConfig
    preprocess: PreprocessConfig
    joint_dim: int
    dtype: torch.dtype
    batch: int
    turns: int


SIZES = {
    # pocket's photo trunk and LLM
    "pocket": Size(
        VisionConfig(
            width=256,
            n_layers=3,
            n_heads=4,
            image_px=64,
            stem_channels=(32, 64, 128, 256),
            stem_depths=(0, 1, 2, 2),
        ),
        PreprocessConfig(image_px=64),
        256,
        torch.float32,
        batch=32,
        turns=3,
    ),
    # 632 M parameters, 32 blocks of width 1280, 257 tokens an image
    "huge": Size(VisionConfig(), PreprocessConfig(), 1024, torch.bfloat16, batch=2, turns=1),
}


def make_model(size):
    """An LLM of pocket's size with senses; weights mean nothing."""
    torch.manual_seed(0)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            pad_token_id=0,
        )
    )
    model = ImageBindLLM.from_llm(llm, make_encoder(size), joint_dim=size.joint_dim)
    model.gates.data.fill_(0.1)
    return model.train()


def make_encoder(size):
    """A vision trunk alone; its memory is filled without the cost of a proper start."""
    config = ImageBindConfig(joint_dim=size.joint_dim, vision=size.vision, **NO_OTHERS)
    with torch.device("meta"):
        parts = build_trunk("vision", config)
    encoder = ImageBind(config, build=False)
    for part in parts.values():
        part.to(size.dtype).to_empty(device="cpu")
        for value in part.state_dict().values():
            value.uniform_(-0.03, 0.03) if value.ndim > 1 else value.fill_(1.0)
    encoder._attach("vision", parts)
    return encoder.requires_grad_(requires_grad=False)


NO_OTHERS = dict.fromkeys(("text", "audio", "depth", "thermal", "imu", "point"))


def draw_rows(count):
    """Token ids of conversations about as long as captions with their question."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(*ROW_TOKENS, (count,), generator=generator).tolist()
    return [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in lengths]


def padded(rows, length=None):
    length = length or max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    mask = (ids != 0).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def make_store(folder, count, joint_dim):
    """A store whose rows are as those that the encoder would give."""
    identity = EncoderIdentity("none", "0" * 16, joint_dim)
    vectors = torch.randn(count, 1, joint_dim, generator=torch.Generator().manual_seed(2))
    with FeatureWriter(folder, identity) as writer:
        for i, vector in enumerate(vectors):
            row = Row(str(i), (), (StoredMedium(f"{i}.jpg", "image"),), vector)
            writer.append(row, vector)
        return writer.finish()


class Loops:
    """The three ways to take a step."""

    def __init__(self, size: Size, store: FeatureStore) -> None:
        self.size, self.store, self.model = size, store, make_model(size)
        trained = self.model.set_phase("bind").values()
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
        self.photos = sorted(MEDIA.glob("*.jpg"))
        self.rows = draw_rows(len(store))
        self.order = cycle(range(len(store)))

    def features(self) -> int:
        chosen = list(islice(self.order, self.size.batch))
        mixed = torch.stack([self.store.mixed(i) for i in chosen])
        self.step(padded([self.rows[i] for i in chosen]), features=mixed)
        return len(chosen)

    def in_the_loop(self) -> int:
        return self.encoded_step(self.size.batch, None)

    def recipe(self) -> int:
        return self.encoded_step(min(RECIPE_BATCH, self.size.batch), RECIPE_TOKENS)

    def encoded_step(self, batch, length) -> int:
        chosen = list(islice(self.order, batch))
        items = [[load(Media.from_path(self.photos[i % len(self.photos)]))] for i in chosen]
        media = MediaBatch.collate(items, self.size.preprocess)
        self.step(padded([self.rows[i] for i in chosen], length), media=media)
        return len(chosen)

    def step(self, tokens, **senses):
        self.model(**tokens, **senses).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds_a_sample(take_step) -> float:
    started = time.process_time()
    count = take_step()
    return (time.process_time() - started) / count


def watch(size, folder):
    """Median processor seconds a sample of each loop; the first step of each is not counted."""
    loops = Loops(size, make_store(folder, 64, size.joint_dim))
    steps = {
        "features": loops.features,
        "in the loop": loops.in_the_loop,
        "recipe": loops.recipe,
    }
    found = {name: [] for name in steps}
    for turn in range(size.turns + 1):
        for name, take_step in steps.items():
            spent = seconds_a_sample(take_step)
            if turn or (size.turns == 1 and name != "features"):  # a step of huge is long enough
                found[name].append(spent)
    return {name: statistics.median(spent) for name, spent in found.items()}


def estimate(n_llm=6.7e9, n_vision=632e6, n_patches=257, length=44):
    """Ratios for a 7 B LLM, by counting: weights are frozen, so backward costs as forward."""

    def llm(tokens):
        return 4 * n_llm * tokens

    encoder = 2 * n_vision * n_patches
    in_the_loop = (encoder + llm(length)) / llm(length)
    return in_the_loop, (encoder + llm(RECIPE_TOKENS)) / llm(length)


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SIZES)
def test_training_speed(name, tmp_path):
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = watch(SIZES[name], tmp_path / "store")
    finally:
        torch.set_num_threads(n_threads)
    ratios = {loop: seconds / spent["features"] for loop, seconds in spent.items()}
    print(f"\n{name}: " + ", ".join(f"{k} {1 / v:.3g} samples/s" for k, v in spent.items()))
    print(", ".join(f"features against {k}: {v:.1f} x" for k, v in ratios.items() if v != 1))
    print(f"aim {WANTED} x; a 7 B LLM by counting: %.2f x and %.1f x" % estimate())
    assert spent["features"] < spent["in the loop"] < spent["recipe"]
