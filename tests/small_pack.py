"""A data pack of a few real media that ship with the package, in the pack's own schema."""

import io
import json

import numpy as np
import pandas as pd
from PIL import Image

from ibllm_tools.demo import MEDIA_FOLDER
from ibllm_tools.media import Media, load

CONCEPTS = {
    "dog": "狗",
    "piano": "钢琴",
    "airplane": "飞机",
    "boat": "船",
    "car": "汽车",
    "chair": "椅子",
    "fish": "鱼",
    "helicopter": "直升机",
    "sea": "海",
}
PHOTOS = ("dog", "piano", "airplane", "boat")
SOUNDS = ("dog", "sea", "helicopter")
SHAPES = ("car", "chair", "fish")


def table(folder, kind, column, blobs, split="val", concepts=CONCEPTS):
    names = list(concepts)
    frame = pd.DataFrame(
        {
            "id": [f"{kind}-{i}" for i in range(len(blobs))],
            "concept": [name for name, _ in blobs],
            "concept_id": [names.index(name) for name, _ in blobs],
            "split": split,
            column: [blob for _, blob in blobs],
        }
    )
    frame.to_parquet(folder / f"{kind}.parquet")


def photo(name):
    buffer = io.BytesIO()
    picture = Image.open(MEDIA_FOLDER / f"{name}.jpg").convert("RGB").resize((64, 64))
    picture.save(buffer, "JPEG")
    return name, buffer.getvalue()


def sound(name):
    return name, (MEDIA_FOLDER / f"{name}.ogg").read_bytes()


def shape(name):
    points = load(Media.from_path(MEDIA_FOLDER / f"{name}.ply")).xyz[:2048]
    return name, np.ascontiguousarray(points).astype("<f2").tobytes()


def scenes(folder, name="donut"):
    """One picture with an object that is no concept."""
    buffer = io.BytesIO()
    Image.effect_noise((96, 80), 60).convert("RGB").save(buffer, "JPEG")
    objects = [{"coco": name, "concept": None, "cxcywh": [0.5, 0.5, 0.6, 0.7]}]
    rows = {"split": ["train"], "jpeg": [buffer.getvalue()], "objects": [json.dumps(objects)]}
    pd.DataFrame(rows).to_parquet(folder / "scenes.parquet")


def write_pack(folder):
    """Write photos, sounds, shapes, scenes and the list of concepts."""
    folder.mkdir(parents=True)
    table(folder, "photos", "jpeg", [photo(name) for name in PHOTOS])
    table(folder, "sounds", "ogg", [sound(name) for name in SOUNDS])
    table(folder, "shapes", "points", [shape(name) for name in SHAPES])
    scenes(folder)
    rows = [
        {"id": i, "name_en": name, "name_zh": zh} for i, (name, zh) in enumerate(CONCEPTS.items())
    ]
    (folder / "concepts.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder
