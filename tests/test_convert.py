"""`ibllm convert`: files of the released layouts, made from the reference numbers, end to end."""

import argparse
import json
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from encoder_sizes import assert_near, imagebind_config, pointbert_config
from safetensors import safe_open
from sentencepiece import SentencePieceProcessor

from ibllm_tools.cache import CacheSettings
from ibllm_tools.convert import convert
from ibllm_tools.convert.adapter import (
    adapter_part,
    part_of_key,
    read_adapter_config,
    released_name,
)
from ibllm_tools.convert.encoder import check_encoder, encoder_config
from ibllm_tools.convert.llama import LlamaFiles, read_config
from ibllm_tools.encoder import ImageBind, ImageBindConfig, VisionConfig
from ibllm_tools.encoder.released import encoder_name
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.model.released import adapter_config, adapter_state, llama_config
from ibllm_tools.preprocess import MediaBatch

TINY = "imagebind_llm_tiny"


class Released(SimpleNamespace):
    """Files in the released layouts, and the sizes of their encoder."""

    def convert(self, out: Path, **changes) -> Path:
        given = {
            "imagebind": self.imagebind,
            "llama": self.llama,
            "adapter": self.adapter,
            "encoder_sizes": self.encoder_sizes,
        }
        return convert(out, **{**given, **changes})


def write_llama(golden, variant: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    params = golden.json(f"{TINY}/{variant}/config.json")["params_json"]
    (folder / "params.json").write_text(json.dumps(params))
    base = dict(golden.tensors(f"{TINY}/{variant}/llama.safetensors"))
    tokenizer = golden.path("text_data/toy_tokenizer.model")
    n_pieces = SentencePieceProcessor(model_file=str(tokenizer)).get_piece_size()
    for key in ("tok_embeddings.weight", "output.weight"):  # fill up to the tokenizer's pieces
        extra = torch.zeros(max(0, n_pieces - len(base[key])), base[key].shape[1])
        base[key] = torch.cat([base[key], extra])
    torch.save(base, folder / "consolidated.00.pth")
    shutil.copyfile(tokenizer, folder.parent / "tokenizer.model")
    return folder


def released_files(golden, variant: str, folder: Path) -> Released:
    """Write one variant's files as their publishers name and wrap them."""
    llama = write_llama(golden, variant, folder / "llama" / "7B")
    adapter = dict(golden.tensors(f"{TINY}/{variant}/adapter.safetensors"))
    torch.save({"model": adapter}, folder / "7B.pth")
    if variant == "end_to_end":
        encoder = dict(golden.tensors(f"{TINY}/{variant}/imagebind.safetensors"))
        sizes = end_to_end_sizes(golden)
    else:
        joint_dim = adapter["image_bind_proj.weight"].shape[1]
        sizes = ImageBindConfig.only(
            joint_dim=joint_dim, vision=VisionConfig(width=8, n_layers=1, n_heads=1)
        )
        encoder = ImageBind(sizes).state_dict()
    torch.save(encoder, folder / "imagebind_huge.pth")
    return Released(
        folder=folder,
        llama=llama,
        adapter=folder / "7B.pth",
        imagebind=folder / "imagebind_huge.pth",
        encoder_sizes=sizes,
        sizes=golden.json(f"{TINY}/{variant}/config.json"),
        inputs=golden.tensors(f"{TINY}/{variant}/inputs.safetensors"),
        outputs=golden.tensors(f"{TINY}/{variant}/outputs.safetensors"),
    )


def end_to_end_sizes(golden) -> ImageBindConfig:
    tiny = golden.json("imagebind_tiny/config.json")
    point = golden.json(f"{TINY}/end_to_end/config.json")["point"]
    trunk = pointbert_config(point["model"], point["projection_dim"], point["fps_start_index"])
    return imagebind_config(tiny["constructor_args"], tiny["patched_sizes"], point=trunk)


@pytest.fixture(scope="module")
def released(golden, tmp_path_factory) -> Released:
    return released_files(golden, "end_to_end", tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def converted(golden, released) -> Path:
    vectors = np.load(golden.path(f"{TINY}/end_to_end/cache_index.npz"))
    vectors = vectors[vectors.files[0]].astype(np.float32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(released.folder / "knn.index"))
    said = []
    out = released.convert(
        released.folder / "out", knn=released.folder / "knn.index", progress=said.append
    )
    assert "adapter.safetensors" in said
    return out


def assert_golden_logits(model, released, **senses) -> None:
    with torch.no_grad():
        logits = model(released.inputs["train.tokens"], **senses).logits
    expected = released.outputs["train.logits"]
    assert_near(logits[..., : expected.shape[-1]], expected)


def image_batch(images) -> MediaBatch:
    n_rows = len(images)
    return MediaBatch(
        inputs={"image": images},
        rows={"image": torch.arange(n_rows)},
        weights={"image": torch.ones(n_rows)},
        n_rows=n_rows,
    )


@pytest.mark.golden
def test_released_files_give_the_reference_logits(converted, released):
    model = ImageBindLLM.from_pretrained(converted)
    assert model.encoder.loaded == []
    batch = image_batch(released.inputs["train.images"])
    features, has_media = model.sense(batch, cache=False)
    assert model.encoder.loaded == ["vision"]
    assert_golden_logits(model, released, features=features, has_media=has_media)


@pytest.mark.golden
def test_every_modality_and_the_cache_come_over(converted, released):
    model = ImageBindLLM.from_pretrained(converted)
    names = [key.removeprefix("raw.") for key in released.inputs if key.startswith("raw.")]
    assert names
    for name in names:
        vector = model.encoder.encode(name.lower(), released.inputs[f"raw.{name}"])
        assert_near(vector, released.outputs[f"embedding.{name}"])
        head = model.encoder.head(name.lower(), released.inputs[f"raw.{name}"])
        assert_near(head, released.outputs[f"prenorm.{name}"])
    cases = released.sizes["mix_cases"].items()
    case = next((case for case, weights in cases if list(weights) == ["Image"]), "image")
    given = released.sizes["cache_params"]
    settings = CacheSettings(given["cache_size"], given["cache_t"], given["cache_weight"])
    features, _ = model.sense(image_batch(released.inputs["raw.Image"]), settings)
    assert_near(features, released.outputs[f"cache.{case}.joint"][:, 0])
    by_default, _ = model.sense(image_batch(released.inputs["raw.Image"]))
    expected, _ = model.sense(image_batch(released.inputs["raw.Image"]), CacheSettings())
    assert torch.equal(by_default, expected)


@pytest.mark.golden
def test_the_folder_answers_questions(converted):
    processor = ImageBindLLMProcessor.from_pretrained(converted)
    model = ImageBindLLM.from_pretrained(converted)
    inputs = processor("What is this?")
    words = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert words.shape[1] > inputs["input_ids"].shape[1]
    assert model.generation_config.top_p == 0.75
    assert processor.preprocess.image_px == model.config.encoder_config.vision.image_px


@pytest.mark.golden
@pytest.mark.parametrize(
    "variant", ["full_query", "last_layers", "legacy_bridge", "pretrain_phase"]
)
def test_every_kind_of_adapter_gives_the_reference_logits(golden, tmp_path, variant):
    released = released_files(golden, variant, tmp_path)
    model = ImageBindLLM.from_pretrained(released.convert(tmp_path / "out"))
    assert model.config.legacy_bind is released.sizes["model"]["legacy_bridge"]
    images = torch.nn.functional.normalize(released.inputs["features.Image"], dim=-1)
    assert_golden_logits(model, released, features=images)


@pytest.mark.golden
def test_a_whole_checkpoint_brings_adapter_and_encoder(released, golden, tmp_path):
    adapter = dict(golden.tensors(f"{TINY}/end_to_end/adapter.safetensors"))
    encoder = dict(golden.tensors(f"{TINY}/end_to_end/imagebind.safetensors"))
    base = torch.load(released.llama / "consolidated.00.pth", weights_only=True)
    whole = {f"image_bind.{key}": value for key, value in encoder.items()}
    whole |= {f"llama.{key}": value for key, value in base.items()}
    run = {"model": {**whole, **adapter}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(run, tmp_path / "checkpoint.pth")
    out = released.convert(tmp_path / "out", imagebind=None, adapter=tmp_path / "checkpoint.pth")
    model = ImageBindLLM.from_pretrained(out)
    features, _ = model.sense(image_batch(released.inputs["train.images"]), cache=False)
    assert_golden_logits(model, released, features=features)


@pytest.mark.golden
def test_a_llama_in_slices_is_put_together(released, converted, tmp_path):
    base = torch.load(released.llama / "consolidated.00.pth", weights_only=True)
    shutil.copytree(released.llama, tmp_path / "llama")
    by_column = ("attention.wo", "feed_forward.w2", "tok_embeddings")
    for part in range(2):
        half = {
            key: value
            if value.ndim == 1
            else value.chunk(2, dim=int(any(name in key for name in by_column)))[part].clone()
            for key, value in base.items()
        }
        torch.save(half, tmp_path / "llama" / f"consolidated.{part:02d}.pth")
    sizes = [4 * value.numel() for value in base.values()]
    most = max(sum(sizes) // 4, *sizes)
    out = released.convert(
        tmp_path / "out",
        llama=tmp_path / "llama",
        tokenizer=released.llama.parent / "tokenizer.model",
        max_shard_bytes=most,
    )
    shards = list((out / "llm").glob("*.safetensors"))
    assert len(shards) > 1
    assert all(file.stat().st_size < most + 50_000 for file in shards)
    one, many = (ImageBindLLM.from_pretrained(folder).llm for folder in (converted, out))
    for name, value in one.state_dict().items():
        assert torch.equal(value, many.state_dict()[name]), name


@pytest.mark.golden
def test_a_point_bind_checkpoint_brings_its_3d_trunk(golden, released, tmp_path):
    encoder = dict(golden.tensors(f"{TINY}/end_to_end/imagebind.safetensors"))
    six = {key: value for key, value in encoder.items() if "point" not in key}
    torch.save(six, tmp_path / "imagebind_huge.pth")
    theirs = {
        key.replace("point_trunk.", "")
        .replace("modality_heads.point", "bind.modality_head_point")
        .replace("modality_postprocessors.point", "bind.modality_postprocessor_point"): value
        for key, value in encoder.items()
        if "point" in key
    }
    torch.save({**theirs, "logit_scale": torch.ones([])}, tmp_path / "pointbind.pt")
    out = released.convert(
        tmp_path / "out",
        imagebind=tmp_path / "imagebind_huge.pth",
        point=tmp_path / "pointbind.pt",
    )
    model = ImageBind.from_pretrained(out / "encoder")
    found = model.encode("point", released.inputs["raw.Point"])
    assert_near(found, released.outputs["embedding.Point"])


@pytest.mark.golden
def test_weights_can_be_stored_in_half(released, tmp_path):
    sizes = tmp_path / "encoder.json"
    sizes.write_text(released.encoder_sizes.to_json_string())
    out = released.convert(tmp_path / "out", dtype="float16", encoder_sizes=sizes)
    for file in out.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            kinds = {tensors.get_tensor(key).dtype for key in tensors.keys()}  # noqa: SIM118
        assert kinds <= {torch.float16, torch.int64}, file
    model = ImageBindLLM.from_pretrained(out)
    features, _ = model.sense(image_batch(released.inputs["train.images"]))
    logits = model(released.inputs["train.tokens"], features=features).logits
    expected = released.outputs["train.logits"]
    difference = (logits[..., : expected.shape[-1]] - expected).abs().max()
    assert difference < 0.05 * max(1.0, expected.abs().max())


# The manifests: every key of the full-size files is mapped or known to be left out.


def meta(entries, keys=None):
    return {
        key: torch.empty(entry["shape"], device="meta")
        for key, entry in entries.items()
        if keys is None or key in keys
    }


@pytest.mark.golden
@pytest.mark.parametrize("form", ["filtered", "whole", "legacy", "pretrain"])
def test_every_key_of_the_7b_manifest_is_mapped_or_known(golden, form):
    manifest = golden.json("imagebind_llm_7b_manifest.json")
    entries = manifest["state_dict_finetune_phase_without_image_bind"]
    filtered = set(manifest["adapter_checkpoint_keys_after_filter"])
    adapter = meta(entries, filtered if form == "filtered" else None)
    if form == "legacy":
        adapter |= meta(manifest["legacy_bridge_additional_keys"])
    if form == "pretrain":
        for key in manifest["keys_absent_in_pretrain_phase"]:
            adapter.pop(key, None)
    encoder = golden.json("imagebind_huge_manifest.json")["state_dict"]
    inside = [f"{manifest['image_bind_keys'].split(chr(34))[1]}{key}" for key in encoder]
    assert {part_of_key(key) for key in inside} == {"encoder"}
    parts = {key: part_of_key(key) for key in adapter}
    assert None not in parts.values()
    own = adapter_part(adapter, form)
    if form in ("filtered", "whole"):
        assert set(own) == filtered
    base_names = {f"llama.{key}" for key in manifest["base_llama_checkpoint_keys"]}
    assert {key for key, part in parts.items() if part == "base"} <= base_names
    base = {key: entries[f"llama.{key}"] for key in manifest["base_llama_checkpoint_keys"]}
    text_config = llama_config(manifest["params_json"], meta(base))
    config = read_adapter_config(own, text_config, None, form)
    assert config.legacy_bind is (form == "legacy")
    assert config.lora_rank == (0 if form == "pretrain" else manifest["lora_rank"])
    assert config.n_injected_layers == manifest["query_layer"]


@pytest.mark.golden
def test_every_key_of_the_base_manifest_is_mapped(golden, tmp_path):
    manifest = golden.json("imagebind_llm_7b_manifest.json")
    entries = manifest["state_dict_finetune_phase_without_image_bind"]
    files = LlamaFiles.__new__(LlamaFiles)  # 13 GB of weights: shapes only
    files.folder, files.params = tmp_path, manifest["params_json"]
    files.shapes = meta(
        {key: entries[f"llama.{key}"] for key in manifest["base_llama_checkpoint_keys"]}
    )
    config = read_config(files)
    assert config.vocab_size == manifest["vocab_size"]
    last = f"layers.{config.num_hidden_layers - 1}.ffn_norm.weight"
    del files.shapes[last]
    with pytest.raises(CheckpointError, match=f"missing: {re.escape(last)}"):
        read_config(files)


@pytest.mark.golden
@pytest.mark.parametrize("point", [None, "imagebind_w3d", "pointcloud/i2pmae"])
def test_every_key_of_the_encoder_manifests_is_mapped(golden, point):
    entries = dict(golden.json("imagebind_huge_manifest.json")["state_dict"])
    if point is not None:
        manifest = golden.json(f"{point}_manifest.json")
        entries |= max((v for v in manifest.values() if isinstance(v, dict)), key=len)
    named = {encoder_name(key): value for key, value in meta(entries).items() if encoder_name(key)}
    sizes = encoder_config(named)
    kind = {None: None, "imagebind_w3d": "pointbert", "pointcloud/i2pmae": "i2pmae"}[point]
    assert (sizes.point.encoder if sizes.point else None) == kind
    check_encoder(named, sizes, "manifest")
    named["extra.weight"] = named.pop("modality_heads.imu.3.weight")
    with pytest.raises(CheckpointError, match=r"missing: modality_heads\.imu\.3\.weight"):
        check_encoder(named, sizes, "manifest")


# What does not fit is refused, and nothing that opens is left behind.


def change_file(path: Path, change) -> str:
    """Change the weights in a file; gives the message that is then expected."""
    loaded = torch.load(path, weights_only=True)
    message = change(loaded.get("model", loaded))
    torch.save(loaded, path)
    return message


def without(pattern: str):
    """Remove one key; of several, that of the highest layer."""

    def change(weights) -> str:
        fitting = [key for key in weights if re.fullmatch(pattern, key)]
        if not fitting:
            pytest.skip(f"no weight is named {pattern}")
        last = max(fitting, key=lambda key: int("0" + re.sub(r"\D*(\d*).*", r"\1", key)))
        del weights[last]
        return f"(missing:|but not) {re.escape(last)}"

    return change


def with_stray(key: str):
    def change(weights) -> str:
        weights[key] = torch.zeros(1)
        return f"unexpected: {re.escape(key)}"

    return change


def with_shape(key: str, *shape: int):
    def change(weights) -> str:
        weights[key] = torch.zeros(shape)
        return re.escape(f"misshapen: {key} {list(shape)}")

    return change


def with_nothing(message: str):
    def change(weights) -> str:
        weights.clear()
        weights["x"] = torch.zeros(1)
        return message

    return change


def copy_of(released, folder: Path) -> Released:
    for name in ("llama", "7B.pth", "imagebind_huge.pth"):
        source = released.folder / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
    return Released(
        llama=folder / "llama" / "7B",
        adapter=folder / "7B.pth",
        imagebind=folder / "imagebind_huge.pth",
        encoder_sizes=released.encoder_sizes,
    )


@pytest.mark.golden
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("7B.pth", without(r"llama\.layers\.\d+\.attention\.lora_wv_l2\.weight")),
        ("7B.pth", without(r"llama\.layers\.\d+\.attention\.gate")),
        ("7B.pth", with_stray("stray")),
        ("7B.pth", with_stray("llama.layers.0.attention.lora_wz_l1.weight")),
        ("7B.pth", with_shape("image_bind_f2_1.weight", 3, 3)),
        ("7B.pth", with_nothing("unexpected: x")),
        ("imagebind_huge.pth", without(r"modality_heads\.imu\.3\.weight")),
        ("imagebind_huge.pth", with_nothing("no weights of ImageBind")),
        ("llama/7B/consolidated.00.pth", without(r"layers\.\d+\.attention\.wk\.weight")),
        ("llama/7B/consolidated.00.pth", with_stray("layers.999.x")),
        ("llama/7B/consolidated.00.pth", with_shape("norm.weight", 3)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(released, tmp_path, file, change):
    files = copy_of(released, tmp_path)
    message = change_file(tmp_path / file, change)
    with pytest.raises(CheckpointError, match=message):
        files.convert(tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Trap:
    """Would leave a mark if a pickle of it were ever run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["7B.pth", "imagebind_huge.pth", "llama/7B/consolidated.00.pth"])
def test_a_pickle_that_would_run_code_is_refused_unrun(released, tmp_path, name):
    files = copy_of(released, tmp_path)
    for save in (torch.save, lambda x, path: path.write_bytes(pickle.dumps(x, 2))):
        save({"model": Trap(tmp_path / "ran")}, tmp_path / name)
        with pytest.raises(CheckpointError, match="nothing in it was run"):
            files.convert(tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.golden
def test_broken_and_absent_files_are_refused(released, tmp_path):
    files = copy_of(released, tmp_path)
    whole = files.adapter.read_bytes()
    files.adapter.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"7B\.pth cannot be read"):
        files.convert(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"found no file .*absent\.pth"):
        files.convert(tmp_path / "out", adapter=tmp_path / "absent.pth")
    (files.llama.parent / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"found no .*tokenizer\.model"):
        files.convert(tmp_path / "out")
    (files.llama / "params.json").write_text('{"dim": 64}')
    with pytest.raises(CheckpointError, match="has no n_heads, n_layers, norm_eps"):
        files.convert(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"found no consolidated\.\*\.pth"):
        files.convert(tmp_path / "out", llama=tmp_path)


@pytest.mark.golden
def test_an_index_or_encoder_of_another_width_is_refused(released, tmp_path):
    width = released.encoder_sizes.joint_dim + 1
    index = faiss.IndexFlatIP(width)
    index.add(np.eye(width, dtype=np.float32))
    faiss.write_index(index, str(tmp_path / "knn.index"))
    with pytest.raises(CheckpointError, match=f"vectors of width {width}"):
        released.convert(tmp_path / "out", knn=tmp_path / "knn.index")
    assert not (tmp_path / "out" / "config.json").exists()
    vision = VisionConfig(width=8, n_layers=1, n_heads=1)
    sizes = ImageBindConfig.only(joint_dim=width, vision=vision)
    other = tmp_path / "other.pth"
    torch.save(ImageBind(sizes).state_dict(), other)
    with pytest.raises(CheckpointError, match="use the encoder that the adapter was trained with"):
        released.convert(tmp_path / "out2", imagebind=other, encoder_sizes=sizes)


@pytest.mark.golden
def test_a_folder_in_use_is_not_written_over(released, converted, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="is not empty"):
        released.convert(tmp_path)
    assert released.convert(tmp_path, overwrite=True) == tmp_path
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="unknown dtype 'int8'"):
        released.convert(tmp_path / "new", dtype="int8")


@pytest.mark.golden
def test_every_name_in_a_message_is_that_of_the_released_file(golden):
    manifest = golden.json("imagebind_llm_7b_manifest.json")
    entries = manifest["state_dict_finetune_phase_without_image_bind"]
    keys = set(manifest["adapter_checkpoint_keys_after_filter"])
    base = {key: entries[f"llama.{key}"] for key in manifest["base_llama_checkpoint_keys"]}
    text_config = llama_config(manifest["params_json"], meta(base))
    config = adapter_config(meta(entries, keys), text_config)
    ours = adapter_state(meta(entries, keys), config)
    gates = {key for key in keys if key.endswith(".gate")}
    assert {released_name(key) for key in ours} - {"llama.layers.*.attention.gate"} == keys - gates
