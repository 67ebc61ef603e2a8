"""The whole model on a GPU gives what it gives on the CPU; skipped where there is none."""

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from tiny_model import save_tiny_model

from ibllm_tools.cache import CacheSettings
from ibllm_tools.media import Audio, Depth, Image, Imu, Points, Text, Thermal
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.preprocess import MediaBatch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CLOSE = {"atol": 1e-3, "rtol": 0}
CACHE = CacheSettings(k=5)


def one_of_each():
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return [
        Image(pixels=PilImage.fromarray(pixels)),
        Text(text="a dog"),
        Audio(samples=draw.uniform(-0.1, 0.1, (1, 16000)).astype("f"), rate_hz=16000),
        Depth(disparity=draw.uniform(1, 9, (40, 40)).astype("f")),
        Thermal(values=draw.uniform(0, 1, (40, 40)).astype("f")),
        Imu(signal=draw.normal(size=(6, 2000)).astype("f")),
        Points(xyz=draw.normal(size=(300, 3)).astype("f")),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def models(folder):
    """The same weights on the CPU and on the GPU."""
    return tuple(ImageBindLLM.from_pretrained(folder).to(d).eval() for d in ("cpu", "cuda"))


@pytest.fixture(scope="module")
def inputs(folder):
    """Four prompts of unequal length: one medium, none, all media, another one."""
    items = one_of_each()
    processor = ImageBindLLMProcessor.from_pretrained(folder)
    media = [[items[2]], [], items, [items[6]]]
    return processor(["What is it?", "Hi.", "What could this be?", "Name it."], media=media)


def on_gpu(inputs):
    words = {name: inputs[name].cuda() for name in ("input_ids", "attention_mask")}
    return {**words, "media": inputs["media"]}  # media may stay on the CPU


@pytest.mark.parametrize("item", one_of_each(), ids=lambda item: item.modality)
def test_every_modality_is_encoded_alike(models, folder, item):
    config = ImageBindLLMProcessor.from_pretrained(folder).preprocess
    batch = MediaBatch.collate([[item]], config)
    (name, x), (cpu, gpu) = next(iter(batch.inputs.items())), models
    with torch.no_grad():
        found = gpu.encoder.encode(name, x)
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), cpu.encoder.encode(name, x), **CLOSE)


@pytest.mark.parametrize("cache", [False, CACHE])
@pytest.mark.parametrize("moved", [False, True])
def test_media_are_mixed_and_blended_alike(models, inputs, cache, moved):
    batch = inputs["media"]
    expected, _ = models[0].sense(batch, cache)
    found, has_media = models[1].sense(batch.to("cuda") if moved else batch, cache)
    assert found.is_cuda
    assert has_media.tolist() == [True, False, True, True]
    torch.testing.assert_close(found.cpu(), expected, **CLOSE)


def test_vectors_for_image_generation_are_alike(models, folder):
    config = ImageBindLLMProcessor.from_pretrained(folder).preprocess
    batch = MediaBatch.collate([one_of_each()], config)
    expected, found = (model.image_embeds(batch, CACHE) for model in models)
    torch.testing.assert_close(found.cpu(), expected, **CLOSE)


def test_logits_and_gradients_are_alike(models, inputs):
    results = []
    for model, given in ((models[0], dict(inputs)), (models[1], on_gpu(inputs))):
        names = model.set_phase("bind")
        model.zero_grad()
        output = model(**given, labels=given["input_ids"], cache=CACHE)
        output.loss.backward()
        grads = {name: weight.grad.cpu() for name, weight in names.items()}
        results.append({"logits": output.logits.detach().cpu(), **grads})
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected, atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_answers_are_alike(models, inputs, options):
    options = {"max_new_tokens": 8, "do_sample": False, "cache": False, **options}
    expected = models[0].generate(**inputs, **options)
    found = models[1].generate(**on_gpu(inputs), **options)
    assert found.cpu().tolist() == expected.tolist()


def test_a_row_of_a_batch_is_what_it_is_alone(models, inputs):
    model, given = models[1], on_gpu(inputs)
    features, has_media = model.sense(given.pop("media"), cache=CACHE)
    with torch.no_grad():
        together = model(**given, features=features, has_media=has_media).logits
        for row in range(len(together)):
            part = {name: value[row : row + 1] for name, value in given.items()}
            one = {"features": features[row : row + 1], "has_media": has_media[row : row + 1]}
            alone = model(**part, **one).logits
            real = given["attention_mask"][row].bool()
            torch.testing.assert_close(alone[0, real], together[row, real], **CLOSE)


def test_bfloat16_stays_near(folder, models, inputs):
    model = ImageBindLLM.from_pretrained(folder, dtype=torch.bfloat16).to("cuda").eval()
    given = on_gpu(inputs)
    with torch.no_grad():
        found = model(**given, cache=False).logits
        expected = models[0](**inputs, cache=False).logits
    assert found.dtype == torch.bfloat16
    real = inputs["attention_mask"].bool()
    difference = (found.float().cpu() - expected)[real].abs().mean()
    assert difference < 0.1 * expected[real].abs().mean()


def test_autocast_trains(models, inputs):
    model, given = models[1], on_gpu(inputs)
    names = model.set_phase("instruct")
    model.zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        loss = model(**given, labels=given["input_ids"], cache=False).loss
    loss.backward()
    grads = [weight.grad for weight in names.values() if weight.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)
