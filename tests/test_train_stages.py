"""Stages 1 and 2, the user's way: what is trained, what is saved, and what is counted."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file
from stage_fixtures import recipe, turns, write_features
from tiny_model import JOINT, save_tiny_model
from typer.testing import CliRunner

from ibllm_tools import ChatImageBindLLM
from ibllm_tools.cli import app
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.preprocess import MediaBatch
from ibllm_tools.train.stages.checkpoints import is_whole, list_checkpoints, newest_whole
from ibllm_tools.train.stages.config import load_config, make_config
from ibllm_tools.train.stages.run import make_arguments, train_stage
from ibllm_tools.train.stages.start import zero_image_feature

pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    return write_features(tmp_path_factory.mktemp("store") / "rows", model)


@pytest.fixture(scope="module")
def bound(model, store, tmp_path_factory):
    """A finished run of stage 1."""
    out = tmp_path_factory.mktemp("bound") / "out"
    settings = recipe("bind", model, out, store, steps=30, lr=1e-2)
    return train_stage(make_config(settings), say=lambda _line: None)


def losses(out):
    log = json.loads((out / "training.json").read_text(encoding="utf-8"))["log"]
    return [entry["loss"] for entry in log if "loss" in entry]


def weights(folder):
    return ImageBindLLM.from_pretrained(folder).state_dict()


def run_cli(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_bind_learns_and_changes_only_its_own_weights(model, bound):
    before, after = weights(model), weights(bound)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {name for name in before if name.startswith(("bind_network", "gates", "prefix"))}
    assert changed == trained
    curve = losses(bound)
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])


def test_instruct_changes_only_the_deltas_and_norms(model, bound, store, tmp_path):
    settings = recipe("instruct", bound, tmp_path / "out", store, lora_rank=4)
    after = weights(train_stage(make_config(settings), say=lambda _line: None))
    before = weights(bound)
    same = {name.replace(".base.", "."): x for name, x in after.items()}
    changed = {name for name in before if not torch.equal(before[name], same[name])}
    assert changed == {name for name in before if "norm" in name and name.startswith("llm.")}
    assert all(x.any() for name, x in after.items() if name.endswith("lora_b"))


def test_instruct_can_train_the_senses_as_well(bound, store, tmp_path):
    settings = recipe("instruct", bound, tmp_path / "out", store, tune_bind=True)
    after = weights(train_stage(make_config(settings), say=lambda _line: None))
    assert not torch.equal(after["gates"], weights(bound)["gates"])


def test_the_final_folder_chats(bound):
    answer = ChatImageBindLLM(model=str(bound), max_tokens=4).invoke("what?")
    assert isinstance(answer.content, str)


def test_checkpoints_hold_what_is_trained_and_open_as_models(bound, store, tmp_path):
    out = tmp_path / "out"
    train_stage(make_config(recipe("instruct", bound, out, store)), say=lambda _line: None)
    newest = newest_whole(out)
    held = load_file(newest / "adapter.safetensors")
    assert not [name for name in held if name.startswith(("bind_network", "gates", "prefix"))]
    assert not [name for name in held if ".base." in name or "embed" in name]
    assert [path.name for path in list_checkpoints(out)] == ["checkpoint-6", "checkpoint-8"]
    final, opened = weights(out), weights(newest)
    assert final.keys() == opened.keys()
    assert all(torch.equal(final[name], opened[name]) for name in final)


def test_a_checkpoint_can_be_exported(bound, store, tmp_path):
    out = tmp_path / "out"
    train_stage(make_config(recipe("instruct", bound, out, store)), say=lambda _line: None)
    done = run_cli("export", out / "checkpoint-8", "--out", tmp_path / "alone")
    assert done.exit_code == 0, done.output
    for name in ("llm", "encoder"):
        assert (tmp_path / "alone" / name).is_dir()
    before, after = weights(out), weights(tmp_path / "alone")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_plain_llm_gets_senses(model, store, tmp_path):
    llm = tmp_path / "llm"
    ImageBindLLM.from_pretrained(model).llm.save_pretrained(llm)
    ImageBindLLMProcessor.from_pretrained(model).tokenizer.save_pretrained(llm)
    settings = recipe("bind", llm, tmp_path / "out", store, encoder=str(model), open_gates=0.3)
    out = train_stage(make_config(settings), say=lambda _line: None)
    loaded = ImageBindLLM.from_pretrained(out)
    assert loaded.encoder.config.joint_dim == JOINT
    assert loaded.gates.mean().item() == pytest.approx(0.3, abs=0.05)
    assert ImageBindLLMProcessor.from_pretrained(out).preprocess.image_px == 32


def test_a_plain_llm_without_an_encoder_is_refused(model, store, tmp_path):
    with pytest.raises(ConfigurationError, match="--encoder"):
        train_stage(make_config(recipe("bind", model / "llm", tmp_path / "out", store)))


def test_a_store_of_another_encoder_is_refused(model, store, tmp_path):
    other = save_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="encoder"):
        train_stage(make_config(recipe("bind", other, tmp_path / "out", store)))


def test_a_folder_in_use_is_refused(model, store, bound):
    with pytest.raises(ConfigurationError, match="--resume"):
        train_stage(make_config(recipe("bind", model, bound, store)))


def test_resuming_with_other_settings_is_refused(model, store, tmp_path):
    out = tmp_path / "out"
    train_stage(make_config(recipe("bind", model, out, store)), say=lambda _line: None)
    (out / "training.json").unlink()
    with pytest.raises(ConfigurationError, match=r"lr: 0\.002 -> 0\.1"):
        train_stage(make_config(recipe("bind", model, out, store, lr=0.1)), resume=True)


def test_rows_are_counted(model, tmp_path):
    store = write_features(tmp_path / "store", model, 8, text_only=3)
    settings = recipe("bind", model, tmp_path / "out", store, steps=4, max_tokens=22)
    out = train_stage(make_config(settings), say=lambda _line: None)
    rows = json.loads((out / "training.json").read_text(encoding="utf-8"))["rows"]
    assert (rows["rows"], rows["text only"], rows["rows with media"]) == (8, 3, 5)
    assert 0 < rows["cut to max_tokens"] <= 5


def test_a_set_that_a_stage_cannot_use_is_refused(model, tmp_path):
    store = write_features(tmp_path / "text", model, 8, text_only=8)
    with pytest.raises(ConfigurationError, match="train instruct"):
        train_stage(make_config(recipe("bind", model, tmp_path / "a", store)))
    store = write_features(tmp_path / "shown", model, 8)
    settings = recipe("bind", model, tmp_path / "b", store, modalities=["audio"])
    with pytest.raises(ConfigurationError, match="--modality image"):
        train_stage(make_config(settings))


def test_text_only_rows_see_the_zero_image_if_wanted(bound, tmp_path):
    store = write_features(tmp_path / "store", bound, 8, text_only=8)
    curves = []
    for form in ("none", "zero_image"):
        settings = recipe("instruct", bound, tmp_path / form, store, text_only=form)
        out = train_stage(make_config(settings), say=lambda _line: None)
        curves.append(losses(out)[0])
        assert ImageBindLLM.from_pretrained(out).config.text_only == form
    assert curves[0] != pytest.approx(curves[1], abs=1e-4)


def test_the_zero_image_is_that_of_use(model):
    loaded = ImageBindLLM.from_pretrained(model)
    loaded.config.text_only = "zero_image"
    features, has_media = loaded.sense(MediaBatch(n_rows=1))
    assert has_media.all()
    assert torch.equal(features[0], zero_image_feature(loaded.encoder))


def test_raw_media_give_what_their_features_give(bound, tmp_path):
    from PIL import Image

    from ibllm_tools.data.sources import open_source
    from ibllm_tools.data.store import write_store

    rows = []
    for number, colour in enumerate(["red", "green", "blue", "white"]):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": [
            {"from": "human", "value": "what?"}, {"from": "gpt", "value": colour}]})  # fmt: skip
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    model = ImageBindLLM.from_pretrained(bound)
    processor = ImageBindLLMProcessor.from_pretrained(bound)
    source = open_source(tmp_path / "rows.json")
    write_store(source, model.encoder, processor.preprocess, tmp_path / "store")
    stored = make_config(recipe("bind", bound, tmp_path / "a", tmp_path / "store"))
    raw_set = [{"data": str(tmp_path / "rows.json")}]
    raw = make_config(recipe("bind", bound, tmp_path / "b", "", sets=raw_set))
    curves = [losses(train_stage(config, say=lambda _line: None)) for config in (stored, raw)]
    assert curves[0] == pytest.approx(curves[1], rel=2e-3)  # features are stored as float16


def test_activation_checkpointing_and_workers_change_no_weight(bound, store, tmp_path):
    plain = make_config(recipe("instruct", bound, tmp_path / "a", store, steps=3))
    saving = {"activation_checkpointing": True, "workers": 1}
    other = make_config(recipe("instruct", bound, tmp_path / "b", store, steps=3, **saving))
    one, two = (weights(train_stage(c, say=lambda _line: None)) for c in (plain, other))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_bfloat16_trains_float32_weights(bound, store, tmp_path):
    settings = recipe("instruct", bound, tmp_path / "out", store, precision="bf16", lr=1e-6)
    out = train_stage(make_config(settings), say=lambda _line: None)
    held = load_file(out / "adapter.safetensors")
    assert {x.dtype for name, x in held.items() if "lora" in name} == {torch.float32}
    before = load_file(bound / "adapter.safetensors")
    assert all(torch.equal(held[name], before[name]) for name in before if "norm" not in name)
    before, after = (load_file(f / "llm" / "model.safetensors") for f in (bound, out))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_command_line_reads_a_recipe_and_options_win(model, store, tmp_path):
    path = tmp_path / "recipe.yaml"
    settings = recipe("bind", model, tmp_path / "unused", store, lr="1e-3")
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    out = tmp_path / "out"
    done = run_cli("bind", "--config", path, "--out", out, "--steps", 2, "--set", "clip=0.5",
                   "--features", f"{store}@3", "--report-to", "tensorboard")  # fmt: skip
    assert done.exit_code == 0, done.output
    config = load_config(out)
    assert (config.steps, config.clip, config.lr, config.batch) == (2, 0.5, 1e-3, 2)
    assert config.sets[0].share == 3
    assert list((out / "runs").rglob("events.out.tfevents*"))
    assert is_whole(out / "checkpoint-2")
    assert "is finished" in run_cli("bind", "--config", out / "recipe.yaml", "--resume").output


def test_presets_hold_the_released_numbers(store, model):
    lines = run_cli("presets", "--json").output
    presets = {name: dict(values) for name, values in json.loads(lines).items()}
    for values in presets.values():
        del values["about"], values["stage"]
    assert presets["paper-bind"]["lr_per_256"] == 1e-4
    values = recipe("instruct", model, "out", store, lr=None, **presets["paper-instruct"])
    config = make_config(values | {"steps": None})
    assert config.peak_lr(8 * 4) == pytest.approx(1.25e-4)
    assert config.warmup_steps(400) == 100
    assert (config.weight_decay, config.lora_rank, config.text_only) == (0.02, 16, "zero_image")


@pytest.mark.parametrize("case", [0, 1])
def test_the_schedule_is_the_released_one(golden, case, store, model, tmp_path):
    """Linear warm-up and half a cosine, by fractional epoch."""
    from transformers import get_scheduler

    wanted = golden.json("text_data/schedule_and_sampler.json")["learning_rate"][case]
    steps, per_epoch = wanted["epochs"] * 40, 40
    values = recipe("bind", model, tmp_path, store, steps=steps, lr=wanted["lr"])
    values |= {"min_lr": wanted["min_lr"], "warmup": wanted["warmup_epochs"] * per_epoch}
    args = make_arguments(make_config(values), steps)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=args.learning_rate)
    schedule = get_scheduler(
        args.lr_scheduler_type, optimizer, args.get_warmup_steps(steps), steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )  # fmt: skip
    rates = [factor * base for base, fn in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
             for factor in [fn(step) for step in range(steps + 1)]]  # fmt: skip
    for epoch, rate in wanted["epoch_lr"]:
        assert rates[round(epoch * per_epoch)] == pytest.approx(rate, abs=1e-9), epoch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrr": 1}, "did you mean lr"),
        ({"lr": "fast"}, "lr: .*number"),
        ({"lr": None}, "lr_per_256"),
        ({"sets": []}, "--features"),
        ({"sets": [{"features": "a", "share": 1}, {"data": "b"}]}, "b: has no share"),
        ({"sets": [{"features": "a", "data": "b"}]}, "one of them"),
        ({"stage": "bnd"}, "stage"),
        ({"text_only": "black"}, "zero_image"),
    ],
)
def test_wrong_settings_say_what_is_wrong(change, message):
    with pytest.raises(ConfigurationError, match=message):
        make_config(recipe("bind", "pocket", "out", "store") | change)


def test_usage_errors_are_one_line(tmp_path):
    assert "--model" in str(run_cli("bind", "--features", "x", "--lr", 1).exception)
    done = run_cli("bind", "--model", "x", "--out", tmp_path, "--features", "y", "--preset", "no")
    assert "paper-bind" in str(done.exception)


def test_lora_goes_to_peft_and_back(bound, store, tmp_path):
    peft = pytest.importorskip("peft")
    from ibllm_tools.llm import named_deltas

    out = tmp_path / "out"
    settings = recipe("instruct", bound, out, store, lora_rank=4, lr=1e-2)
    train_stage(make_config(settings), say=lambda _line: None)
    done = run_cli("to-peft", out, "--out", tmp_path / "peft")
    assert done.exit_code == 0, done.output
    assert "added biases" in done.output
    ours = ImageBindLLM.from_pretrained(out)
    with torch.no_grad():
        for name, bias in named_deltas(ours.llm):
            if name.endswith("bias"):
                bias.zero_()
    ids = torch.arange(5, 25)[None]
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(bound / "llm")
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "peft").eval()
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)
    assert not torch.allclose(ours(ids).logits, ImageBindLLM.from_pretrained(bound)(ids).logits)

    lora = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(bound / "llm"),
        peft.LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "up_proj"],
                        init_lora_weights=False, task_type="CAUSAL_LM"),
    )  # fmt: skip
    lora.save_pretrained(tmp_path / "lora")
    done = run_cli("from-peft", tmp_path / "lora", "--model", bound, "--out", tmp_path / "joined")
    assert done.exit_code == 0, done.output
    joined = ImageBindLLM.from_pretrained(tmp_path / "joined")
    assert torch.allclose(joined(ids).logits, lora.eval()(ids).logits, atol=1e-5)


def test_every_turn_of_a_dialog_is_a_target(model):
    from ibllm_tools.train.stages.supervision import supervise_conversation

    tokenizer = ImageBindLLMProcessor.from_pretrained(model).tokenizer
    row = supervise_conversation(tokenizer, turns("a?", "one", "b?", "two"), 512)
    told = [i for i, label in zip(row.ids, row.labels, strict=True) if label >= 0]
    assert tokenizer.decode(told) == "one<|end|>two<|end|>"
