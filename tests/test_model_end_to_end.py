"""Encoder, mix, cache, bind network and LLM together, against the released code's numbers."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from encoder_sizes import imagebind_config, pointbert_config
from test_model_golden import answer, build, close, targets

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.encoder import ImageBind
from ibllm_tools.model.released import adapter_state
from ibllm_tools.preprocess import MediaBatch

pytestmark = pytest.mark.golden

PLACE = "imagebind_llm_tiny/end_to_end"


@pytest.fixture(scope="module")
def case(golden):
    sizes = golden.json(f"{PLACE}/config.json")
    tiny = golden.json("imagebind_tiny/config.json")
    point = sizes["point"]
    encoder = ImageBind(
        imagebind_config(
            tiny["constructor_args"],
            tiny["patched_sizes"],
            point=pointbert_config(
                point["model"], point["projection_dim"], point["fps_start_index"]
            ),
        )
    ).eval()
    weights = golden.tensors(f"{PLACE}/imagebind.safetensors")
    missing, unexpected = encoder.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(key.endswith(("mask", "logit_scale", "num_batches_tracked")) for key in missing)
    model = build(golden, "end_to_end", encoder=encoder)
    vectors = np.load(golden.path(f"{PLACE}/cache_index.npz"))
    model.cache = VisualCache(vectors[vectors.files[0]])
    return SimpleNamespace(
        model=model,
        sizes=sizes,
        inputs=golden.tensors(f"{PLACE}/inputs.safetensors"),
        outputs=golden.tensors(f"{PLACE}/outputs.safetensors"),
        load_grads=lambda: golden.tensors(f"{PLACE}/grads.safetensors"),
    )


def batch_of(case, weights):
    """One row with every medium of a mix."""
    names = {name: name.lower() for name in weights}
    return MediaBatch(
        n_rows=1,
        inputs={names[name]: case.inputs[f"raw.{name}"] for name in weights},
        rows={names[name]: torch.tensor([0]) for name in weights},
        weights={names[name]: torch.tensor([float(weights[name])]) for name in weights},
    )


def settings_of(case):
    given = case.sizes["cache_params"]
    return CacheSettings(given["cache_size"], given["cache_t"], given["cache_weight"])


def test_encoder_results(case):
    for name in sorted(key.removeprefix("raw.") for key in case.inputs if key.startswith("raw.")):
        x, encoder = case.inputs[f"raw.{name}"], case.model.encoder
        with torch.no_grad():
            close(encoder.encode(name.lower(), x), case.outputs[f"embedding.{name}"])
            close(encoder.head(name.lower(), x), case.outputs[f"prenorm.{name}"])


@pytest.mark.parametrize("kind", ["visual", "cache"])
def test_mixes_with_and_without_cache(case, kind):
    for name, weights in case.sizes["mix_cases"].items():
        cache = settings_of(case) if kind == "cache" else False
        features, has_media = case.model.sense(batch_of(case, weights), cache)
        assert has_media.tolist() == [True]
        close(features[:, None], case.outputs[f"{kind}.{name}.joint"])
        with torch.no_grad():
            close(case.model.bind(features), case.outputs[f"{kind}.{name}.out"])


@pytest.mark.parametrize("kind", ["plain", "cache"])
def test_vectors_for_image_generation(case, kind):
    for name, weights in case.sizes["mix_cases"].items():
        cache = settings_of(case) if kind == "cache" else False
        found = case.model.image_embeds(batch_of(case, weights), cache)
        close(found.squeeze(), case.outputs[f"image_embeds.{name}.{kind}"].squeeze())


@pytest.fixture
def trained(case):
    tokens, labels = case.inputs["train.tokens"], case.inputs["train.labels"]
    images = case.inputs["train.images"]
    media = MediaBatch(
        n_rows=len(images),
        inputs={"image": images},
        rows={"image": torch.arange(len(images))},
        weights={"image": torch.ones(len(images))},
    )
    case.model.zero_grad()
    names = case.model.set_phase("instruct")
    output = case.model(tokens, labels=targets(labels), media=media)
    return SimpleNamespace(output=output, names=names)


def test_training_from_images(case, trained):
    close(trained.output.logits, case.outputs["train.logits"])
    close(trained.output.loss[None], case.outputs["train.loss"])


def test_gradients_from_images(case, trained):
    grads = case.load_grads()
    trained.output.loss.backward()
    expected = adapter_state({name: grads[name] for name in list(grads)}, case.model.config)
    assert expected.keys() <= trained.names.keys()
    for name, gradient in expected.items():
        close(trained.names[name].grad, gradient)


def test_greedy_answers_about_media(case):
    wanted = case.sizes["generate"]
    row = int(re.search(r"row (\d+)", wanted["prompt"])[1])  # such as "row 0 of infer.prompt"
    prompt = case.inputs["infer.prompt"][row : row + 1].tolist()
    for name, tokens in wanted["tokens"].items():
        media = batch_of(case, case.sizes["mix_cases"][name])
        features, _ = case.model.sense(media, cache=False)
        assert answer(case, prompt, features, wanted["max_gen_len"]) == [tokens]
        ids = torch.tensor(prompt)
        found = case.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            media=media,
            cache=False,
            max_new_tokens=len(tokens),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert found[0, ids.shape[1] :].tolist() == tokens
