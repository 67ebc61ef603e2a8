"""What the tests of stages 1 and 2 share: a tiny model, a tiny feature store, a tiny recipe."""

import torch
from tiny_model import JOINT

from ibllm_tools.data.store import (
    FeatureWriter,
    StoredMedium,
    StoredRow,
    identify_encoder,
)
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

NAMES = ("cat", "dog", "sea", "car")


def turns(*texts):
    """A conversation of alternating user and assistant turns."""
    roles = ("user", "assistant")
    return tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts))


def write_features(folder, model_folder, rows=40, *, text_only=0, seed=0):
    """A store of rows that show one of four things; the first `text_only` rows show nothing."""
    model = ImageBindLLM.from_pretrained(model_folder)
    processor = ImageBindLLMProcessor.from_pretrained(model_folder)
    identity = identify_encoder(model.encoder, processor.preprocess)
    generator = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(4, JOINT, generator=generator), dim=-1)
    with FeatureWriter(folder, identity) as writer:
        for number in range(rows):
            kind = number % 4
            noisy = means[kind] + 0.1 * torch.randn(1, JOINT, generator=generator)
            features = torch.nn.functional.normalize(noisy, dim=-1)
            media = (StoredMedium(f"{number}.jpg", "image"),)
            if number < text_only:
                features, media = torch.zeros(0, JOINT), ()
            messages = turns("what?", NAMES[kind], "sure?" * (number % 3 + 1), "yes" * (kind + 1))
            writer.append(StoredRow(str(number), messages, media, features), features)
        writer.finish()
    return folder


def recipe(stage, model, out, store, **settings):
    """Settings of a short run on a CPU."""
    values = {
        "stage": stage,
        "model": str(model),
        "out": str(out),
        "sets": [{"features": str(store)}],
        "steps": 8,
        "batch": 2,
        "lr": 2e-3,
        "warmup": 2,
        "save_every": 3,
        "log_every": 1,
        "device": "cpu",
        "precision": "fp32",
    }
    return values | settings
