"""ImageBind's six trunks against the reference numbers, and folders as users open them."""

import copy
import threading

import pytest
import torch
from conftest import stored_names
from encoder_sizes import assert_near, check_recipe, imagebind_config, recipe_weights
from safetensors.torch import load_file, save_file

from ibllm_tools.encoder import (
    AudioConfig,
    ImageBind,
    ImageBindConfig,
    PointConfig,
    TextConfig,
    VisionConfig,
    trunk_of,
)
from ibllm_tools.encoder.released import encoder_name
from ibllm_tools.encoder.storage import trunk_of_key
from ibllm_tools.errors import CheckpointError, ConfigurationError, IbllmError

TRUNKS = ["vision", "text", "audio", "depth", "thermal", "imu"]
USUAL = [
    "vision.image", "vision.video", "text.tokens", "audio.clips", "depth.image",
    "thermal.image", "imu.signal",
]  # fmt: skip
RECIPE_INPUTS = stored_names("imagebind_recipe/inputs.safetensors", *USUAL)
TINY_INPUTS = stored_names("imagebind_tiny/inputs.safetensors", *USUAL)


@pytest.fixture(autouse=True)
def _same_draws_every_time():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def reference(golden):
    """The tiny reference model, with its stored weights."""
    info = golden.json("imagebind_tiny/config.json")
    model = ImageBind(imagebind_config(info["constructor_args"], info["patched_sizes"])).eval()
    model.load_state_dict(golden.tensors("imagebind_tiny/weights.safetensors"))
    return model


@pytest.mark.golden
@pytest.mark.parametrize("name", TINY_INPUTS)
def test_every_step_equals_the_reference(golden, reference, name):
    x = golden.tensors("imagebind_tiny/inputs.safetensors")[name]
    expected = golden.tensors("imagebind_tiny/outputs.safetensors")
    with torch.no_grad():
        stages = reference.stages(name.split(".")[0], x)
    for step in ("tokens", "trunk", "head", "out"):
        assert_near(getattr(stages, step), expected[f"{name}.{step}"])


@pytest.mark.golden
@pytest.mark.parametrize("name", RECIPE_INPUTS)
def test_small_recipe_model_equals_the_reference(golden, recipe_model, name):
    x = golden.tensors("imagebind_recipe/inputs.safetensors")[name]
    expected = golden.tensors("imagebind_recipe/small_outputs.safetensors")
    assert_recipe_outputs(recipe_model, name, x, expected)


@pytest.fixture(scope="module")
def recipe_model(golden):
    info = golden.json("imagebind_recipe/small_info.json")
    model = ImageBind(imagebind_config(info["constructor_args"])).eval()
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert len(shapes) == info["num_state_dict_keys"]
    weights = recipe_weights(shapes, info["recipe_base_seed"])
    check_recipe(weights, info["weight_checks_sum_first_last"])
    load_all_but_fixed(model, weights)
    return model


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("trunk", TRUNKS)
def test_full_size_equals_the_reference_one_trunk_at_a_time(golden, trunk):
    info = golden.json("imagebind_recipe/huge_info.json")
    manifest = golden.json("imagebind_huge_manifest.json")
    inputs = golden.tensors("imagebind_recipe/inputs.safetensors")
    expected = golden.tensors("imagebind_recipe/huge_outputs.safetensors")
    names = [name for name in inputs if name.split(".")[0] == trunk and f"{name}.out" in expected]
    if not names:
        pytest.skip(f"no numbers of the {trunk} trunk")
    whole = imagebind_config(manifest["constructor_args"])
    with torch.device("meta"):
        model = ImageBind(ImageBindConfig.only(**{trunk: getattr(whole, trunk)})).eval()
    shapes = {key: entry["shape"] for key, entry in manifest["state_dict"].items()}
    weights = recipe_weights(
        shapes, info["recipe_base_seed"], lambda key: trunk_of_key(key) == trunk
    )
    check_recipe(weights, info["weight_checks_sum_first_last"])
    load_all_but_fixed(model, weights)
    for name in names:
        assert_recipe_outputs(model, name, inputs[name], expected)


def load_all_but_fixed(model, weights) -> None:
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    assert not unexpected
    assert all(key.endswith(("mask", "log_logit_scale")) for key in missing)


def assert_recipe_outputs(model, name, x, expected) -> None:
    x = x.float() if x.is_floating_point() else x
    with torch.no_grad():
        stages = model.stages(name.split(".")[0], x)
    assert_near(stages.head, expected[f"{name}.head"])
    assert_near(stages.out, expected[f"{name}.out"])


@pytest.mark.golden
def test_every_key_and_shape_of_the_manifests_is_there(golden):
    manifest = golden.json("imagebind_huge_manifest.json")
    point = golden.json("imagebind_w3d_manifest.json")["additional_state_dict"]
    expected = {
        encoder_name(key): entry["shape"]
        for key, entry in {**manifest["state_dict"], **point}.items()
    }
    config = imagebind_config(manifest["constructor_args"], point=PointConfig())
    with torch.device("meta"):
        model = ImageBind(config)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == expected
    six = [p for key, p in model.named_parameters() if trunk_of_key(key) != "point"]
    assert sum(p.numel() for p in six) == manifest["parameter_counts"]["total_parameters"]


@pytest.mark.golden
def test_the_default_config_is_the_released_one(golden):
    manifest = golden.json("imagebind_huge_manifest.json")
    assert ImageBindConfig().to_dict() == imagebind_config(manifest["constructor_args"]).to_dict()


def small_config() -> ImageBindConfig:
    return ImageBindConfig.only(
        joint_dim=16,
        vision=VisionConfig(width=24, n_layers=2, n_heads=2, image_px=32, patch_px=8),
        text={"width": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 40, "n_context": 9},
        audio=AudioConfig(
            width=24, n_layers=2, n_heads=2, n_mels=32, n_frames=48,
            stem_channels=(8, 16), stem_depths=(0, 1), drop_path=0.3,
        ),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    ImageBind(small_config()).save_pretrained(tmp_path)
    return tmp_path


IMAGE, AUDIO = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 32, 48)


def test_a_trunk_is_read_when_its_modality_is_first_used(folder):
    model = ImageBind.from_pretrained(folder)
    assert model.loaded == []
    assert model.encode("image", IMAGE).shape == (2, 16)
    assert model.loaded == ["vision"]
    (folder / "text.safetensors").unlink()  # never opened unless text comes
    model.encode("audio", AUDIO)
    assert model.loaded == ["vision", "audio"]
    assert not any(p.requires_grad for p in model.parameters())


def test_a_missing_trunk_names_the_modality_and_those_present(folder):
    (folder / "audio.safetensors").unlink()
    model = ImageBind.from_pretrained(folder)
    with pytest.raises(IbllmError, match=r"audio trunk.*present are: vision, text"):
        model.encode("audio", AUDIO)
    with pytest.raises(IbllmError, match=r"no thermal trunk; present are: vision, text, audio"):
        model.encode("thermal", IMAGE[:, :1])
    assert model.encode("image", IMAGE).isfinite().all()


def test_a_folder_round_trip_keeps_every_number(tmp_path):
    model = ImageBind(small_config()).eval()
    model.save_pretrained(tmp_path / "first")
    opened = ImageBind.from_pretrained(tmp_path / "first")
    opened.encode("image", IMAGE)
    opened.save_pretrained(tmp_path / "second")  # audio and text were never read
    again = ImageBind.from_pretrained(tmp_path / "second")
    assert torch.equal(again.encode("image", IMAGE), model.encode("image", IMAGE))
    assert torch.equal(again.encode("audio", AUDIO), model.encode("audio", AUDIO))
    assert again.config.to_dict() == model.config.to_dict()


def test_weights_saved_in_half_precision_run_in_the_asked_one(tmp_path):
    model = ImageBind(small_config()).eval()
    model.save_pretrained(tmp_path, dtype=torch.float16)
    assert load_file(tmp_path / "vision.safetensors")[
        "modality_heads.vision.2.weight"
    ].dtype == torch.float16  # fmt: skip
    full = model.encode("image", IMAGE)
    wide = ImageBind.from_pretrained(tmp_path).encode("image", IMAGE)
    narrow = ImageBind.from_pretrained(tmp_path, dtype=torch.bfloat16).encode("image", IMAGE)
    assert (wide.dtype, narrow.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(wide, full, rtol=0, atol=1e-3)
    torch.testing.assert_close(narrow.float(), full, rtol=0, atol=3e-2)


def test_a_later_cast_holds_for_trunks_read_later(folder):
    model = ImageBind.from_pretrained(folder).to(torch.bfloat16)
    assert model.encode("audio", AUDIO).dtype == torch.bfloat16


def test_many_threads_share_one_reading(folder):
    model, results = ImageBind.from_pretrained(folder), []
    start = threading.Barrier(8)

    def ask():
        start.wait()
        results.append(model.encode("image", IMAGE))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(torch.equal(result, results[0]) for result in results)


def test_weights_first_read_in_inference_mode_can_train_later(folder):
    model = ImageBind.from_pretrained(folder)
    with torch.inference_mode():
        model.encode("image", IMAGE)
    model.requires_grad_().train()
    model.encode("image", IMAGE).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_frozen_encoder_stays_as_it_is_inside_a_model_that_trains(folder):
    model = torch.nn.ModuleList([ImageBind.from_pretrained(folder)]).train()
    first, second = (model[0].encode("audio", AUDIO) for _ in range(2))
    assert torch.equal(first, second)


def test_a_copy_answers_like_the_original(folder):
    model = ImageBind.from_pretrained(folder)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.encode("image", IMAGE), model.encode("image", IMAGE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("modality_heads.text.proj.1.weight"), r"missing: modality_heads\.text"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda t: t.update({"modality_heads.text.proj.1.weight": torch.zeros(3, 16)}),
            r"misshapen: .*proj\.1\.weight \[3, 16\] instead of \[16, 16\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder, change, message):
    tensors = load_file(folder / "text.safetensors")
    change(tensors)
    save_file(tensors, folder / "text.safetensors")
    with pytest.raises(CheckpointError, match=message):
        ImageBind.from_pretrained(folder).encode("text", torch.ones(1, 9, dtype=torch.long))


def test_a_cut_file_is_refused(folder):
    path = folder / "vision.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"vision\.safetensors cannot be read"):
        ImageBind.from_pretrained(folder).encode("image", IMAGE)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        ImageBind.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        ImageBind.from_pretrained(tmp_path)


def test_fixed_buffers_may_be_absent_from_a_file(folder):
    tensors = load_file(folder / "text.safetensors")
    del tensors["modality_preprocessors.text.mask"]
    save_file(tensors, folder / "text.safetensors")
    tokens = torch.tensor([[38, 5, 39, 0, 0, 0, 0, 0, 0]])
    assert ImageBind.from_pretrained(folder).encode("text", tokens).isfinite().all()


def test_text_looks_only_back():
    model = ImageBind(small_config()).eval()
    text = torch.tensor([[38, 5, 39, 0, 0], [38, 5, 39, 7, 8]])
    first, second = model.encode("text", text)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("stem", [{}, {"stem_channels": (8, 12), "stem_depths": (1, 1)}])
def test_a_still_clip_equals_its_image(stem):
    vision = VisionConfig(width=24, n_layers=1, n_heads=2, image_px=32, patch_px=8, **stem)
    model = ImageBind(ImageBindConfig.only(joint_dim=8, vision=vision)).eval()
    clip = IMAGE.unsqueeze(2).expand(-1, -1, 2, -1, -1)
    image = model.encode("image", IMAGE)
    torch.testing.assert_close(model.encode("video", clip), image)
    torch.testing.assert_close(model.encode("video", clip.unsqueeze(1)), image)
    torch.testing.assert_close(model.encode("image", IMAGE.unsqueeze(1)), image)


def test_rows_of_a_batch_are_what_they_are_alone():
    model = ImageBind(small_config()).eval()
    clips = torch.randn(3, 4, 1, 32, 48)
    together = model.encode("audio", clips)
    for row in range(3):
        alone = model.encode("audio", clips[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


def test_the_head_is_the_vector_before_normalisation():
    model = ImageBind(small_config()).eval()
    head, out = model.head("image", IMAGE), model.encode("image", IMAGE)
    torch.testing.assert_close(torch.nn.functional.normalize(head, dim=-1), out)
    assert not torch.allclose(head.norm(dim=-1), torch.ones(2), atol=1e-2)


def test_drop_path_works_only_while_training():
    config = ImageBindConfig.only(
        joint_dim=8, audio=AudioConfig(width=16, n_layers=3, n_heads=2, n_mels=32, n_frames=48,
                                       drop_path=0.9),
    )  # fmt: skip
    model = ImageBind(config)
    many = AUDIO[:1].expand(16, -1, -1, -1)
    assert model.train().encode("audio", many).std(0).max() > 1e-4
    assert model.eval().encode("audio", many).std(0).max() < 1e-4


def test_all_weights_learn_in_bfloat16_autocast():
    model = ImageBind(small_config()).train()
    with torch.autocast("cpu", torch.bfloat16):
        outs = model({"image": IMAGE, "audio": AUDIO, "text": torch.randint(0, 40, (2, 9))})
    sum(out.float().pow(3).sum() for out in outs.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trunk_of("smell"), "unknown modality 'smell'; use one of image, video"),
        (lambda: TextConfig(width=10, n_heads=3), "width 10 is not divisible by n_heads 3"),
        (lambda: ImageBindConfig(vision={"depth": 3}), "vision trunk has no field depth"),
        (lambda: PointConfig(encoder="pointnet"), "use 'pointbert' or 'i2pmae'"),
        (lambda: VisionConfig(stem_channels=(8,)), "1 stem_channels and 0 stem_depths"),
        (
            lambda: ImageBind(small_config()).encode("image", IMAGE[0]),
            r"found image of shape \(3, 32, 32\), expected 4 axes",
        ),
        (
            lambda: ImageBind(small_config()).encode("text", torch.ones(1, 12, dtype=torch.long)),
            "found 12 text tokens, expected at most 9",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_next_step(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
