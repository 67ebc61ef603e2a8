"""Media: every block spelling and every format, through `Media` and `load`."""

import base64
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, HumanMessage
from media_samples import (
    HERE,
    cloud,
    picture,
    sample,
    tone,
)

from ibllm_tools.errors import MediaError
from ibllm_tools.media import (
    Audio,
    Image,
    Media,
    MediaPolicy,
    Points,
    Text,
    Video,
    is_media,
    load,
)

PNG = sample("image.png")
B64 = base64.b64encode(PNG).decode()
WAV64 = base64.b64encode(sample("audio.wav")).decode()
MP464 = base64.b64encode(sample("front.mp4")).decode()
PLY64 = base64.b64encode(sample("little.ply")).decode()


def block(data, type_="file", **more):
    return {"type": type_, "base64": base64.b64encode(data).decode(), **more}


# --- blocks ---------------------------------------------------------------------------------

SPELLINGS = {
    "v1 image": ({"type": "image", "base64": B64, "mime_type": "image/png"}, Image),
    "v1 image without a type": ({"type": "image", "base64": B64}, Image),
    "v1 data url": ({"type": "image", "url": f"data:image/png;base64,{B64}"}, Image),
    "v1 audio": ({"type": "audio", "base64": WAV64, "mime_type": "audio/wav"}, Audio),
    "v1 video": ({"type": "video", "base64": MP464, "mime_type": "video/mp4"}, Video),
    "v1 file": ({"type": "file", "base64": PLY64, "mime_type": "model/ply"}, Points),
    "v1 file of sound": ({"type": "file", "base64": WAV64, "mime_type": "audio/x-wav"}, Audio),
    "octet stream": (
        {"type": "file", "base64": PLY64, "mime_type": "application/octet-stream"},
        Points,
    ),
    "sensed text": ({"type": "text", "text": "a dog", "extras": {"modality": "text"}}, Text),
    "openai image": (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{B64}"}},
        Image,
    ),
    "openai bare image": (
        {"type": "image_url", "image_url": f"data:image/png;base64,{B64}"},
        Image,
    ),
    "openai responses image": (
        {"type": "input_image", "image_url": f"data:image/png;base64,{B64}"},
        Image,
    ),
    "openai audio": (
        {"type": "input_audio", "input_audio": {"data": WAV64, "format": "wav"}},
        Audio,
    ),
    "openai video": (
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{MP464}"}},
        Video,
    ),
    "openai file": (
        {"type": "file", "file": {"file_data": f"data:model/ply;base64,{PLY64}"}},
        Points,
    ),
    "v0 base64": (
        {"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"},
        Image,
    ),
    "v0 bytes": ({"type": "image", "source_type": "base64", "data": PNG}, Image),
    "v0 url": (
        {"type": "audio", "source_type": "url", "url": f"data:audio/wav;base64,{WAV64}"},
        Audio,
    ),
    "anthropic": (
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": B64},
        },
        Image,
    ),
    "point cloud": (
        {"type": "point_cloud", "base64": PLY64, "mime_type": "model/ply"},
        Points,
    ),
    "non standard": (
        {
            "type": "non_standard",
            "value": {"type": "point_cloud", "base64": PLY64, "mime_type": "model/ply"},
        },
        Points,
    ),
    "non standard image": (
        {"type": "non_standard", "value": {"type": "image", "base64": B64}},
        Image,
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_block_is_accepted(spelling):
    given, kind = SPELLINGS[spelling]
    assert is_media(given)
    assert isinstance(load(given), kind)


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name != "v0 bytes"])
def test_blocks_normalised_by_langchain_are_accepted(spelling):
    given, kind = SPELLINGS[spelling]
    (normal,) = HumanMessage(content=[given]).content_blocks
    assert isinstance(load(normal), kind)


@pytest.mark.parametrize(
    "other",
    [
        {"type": "text", "text": "hello"},
        {"type": "text", "text": "hello", "extras": {"signature": "x"}},
        {"type": "tool_call", "name": "f", "args": {}, "id": "1"},
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "non_standard", "value": {"type": "thinking"}},
        {"type": "non_standard", "value": None},
        {"type": "file", "source_type": "text", "text": "plain"},
        {"type": "text-plain", "text": "x", "mime_type": "text/plain"},
        {},
        "hello",
        None,
    ],
)
def test_what_is_not_meant_as_a_medium_is_left_alone(other):
    assert not is_media(other)


@pytest.mark.parametrize(
    "holder",
    [
        {"extras": {"modality": "depth", "weight": 0.25, "name": "wall.png"}},
        {"metadata": {"modality": "depth", "weight": 0.25, "name": "wall.png"}},
        {"extras": {"metadata": {"modality": "depth", "weight": 0.25}, "name": "wall.png"}},
    ],
)
def test_modality_weight_and_name_come_from_extras(holder):
    item = load({"type": "image", "base64": B64, **holder})
    assert (item.modality, item.weight) == ("depth", 0.25)


def test_extras_survive_langchains_normalisation_of_older_blocks():
    old = {"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"}
    old["metadata"] = {"modality": "thermal", "weight": 0.5, "name": "body.png"}
    (normal,) = HumanMessage(content=[old]).content_blocks
    item = load(normal)
    assert (item.modality, item.weight) == ("thermal", 0.5)


def test_core_calls_every_openai_file_a_pdf_and_we_look_at_the_bytes():
    given = {"type": "file", "file": {"file_data": f"data:model/ply;base64,{PLY64}"}}
    (normal,) = HumanMessage(content=[given]).content_blocks
    assert normal["mime_type"] == "application/pdf"
    assert isinstance(load(normal), Points)


def test_a_video_block_can_be_heard_instead_of_seen():
    heard = block(sample("video.mp4"), "video", extras={"modality": "audio"})
    assert isinstance(load(heard), Audio)


def test_file_ids_are_looked_up_where_a_store_is_given():
    store = {"image-1": Media.from_bytes(PNG, weight=0.5, name="dog.png")}
    item = load({"type": "image", "file_id": "image-1"}, lookup=store.__getitem__)
    assert (item.name, item.weight, item.modality) == ("dog.png", 0.5, "image")
    overruled = {
        "type": "image",
        "file_id": "image-1",
        "extras": {"weight": 2, "modality": "depth"},
    }
    item = load(overruled, lookup=store.__getitem__)
    assert (item.weight, item.modality) == (2.0, "depth")
    with pytest.raises(MediaError, match="not known"):
        load({"type": "image", "file_id": "image-2"}, lookup=store.__getitem__)
    with pytest.raises(MediaError, match="names another"):
        load({"type": "image", "file_id": "a"}, lookup=lambda _: {"type": "image", "file_id": "b"})


# --- Media ----------------------------------------------------------------------------------

ARRAYS = {
    "image": (picture(), {}),
    "audio": (tone(channels=2).T, {"rate_hz": 16000}),
    "depth": (np.linspace(0, 60, 12).reshape(3, 4), {}),
    "thermal": (np.linspace(0, 1, 12).reshape(3, 4), {}),
    "imu": (np.random.default_rng(0).normal(size=(6, 40)), {}),
    "point": (cloud(), {}),
}


@pytest.mark.parametrize("modality", ARRAYS)
def test_arrays_come_back_as_they_went_in(modality):
    array, more = ARRAYS[modality]
    media = Media.from_array(array, modality, weight=0.5, name="mine", **more)
    assert (media.modality, media.weight, media.name) == (modality, 0.5, "mine")
    item = load(media)
    values = {
        "image": lambda: np.asarray(item.pixels),
        "audio": lambda: item.samples,
        "depth": lambda: item.disparity,
        "thermal": lambda: item.values,
        "imu": lambda: item.signal,
        "point": lambda: item.xyz,
    }[modality]()
    np.testing.assert_array_equal(values, array.astype(values.dtype))


@pytest.mark.parametrize(
    ("array", "modality"),
    [
        (np.zeros((4, 4, 3)), "image"),
        (np.zeros((4, 4, 2), np.uint8), "image"),
        (np.zeros(100), "audio"),
        (np.zeros((5, 5, 3), np.uint8), "video"),
        (np.zeros(3), "text"),
        (np.zeros(3), "smell"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(array, modality):
    with pytest.raises(MediaError):
        Media.from_array(array, modality)


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.parametrize("name", ["dog.jpg", "dog.ogg", "dog.mp4", "car.ply"])
def test_media_from_a_file_goes_through_messages_and_json(name):
    media = Media.from_path(HERE / name, weight=0.4)
    direct = load(media)
    message = HumanMessage(content=["What is this?", media])
    assert message.content[1] == media
    stored = HumanMessage.model_validate(json.loads(json.dumps(message.model_dump())))
    revived = loads(dumps(message), allowed_objects=[HumanMessage])
    for copy in (stored, revived):
        again = load(copy.content_blocks[1])
        assert type(again) is type(direct)
        assert (again.name, again.weight) == (name, 0.4)


def test_media_in_an_answer_is_accepted_too():
    message = AIMessage(content=[Media.from_path(HERE / "dog.jpg")])
    assert isinstance(load(message.content_blocks[0]), Image)


def test_media_shows_itself_without_its_bytes():
    assert len(repr(Media.from_path(HERE / "dog.jpg"))) < 100


def test_the_modality_follows_from_the_content():
    found = {name: Media.from_bytes(sample(name)).modality for name in MODALITY_OF}
    assert found == MODALITY_OF


MODALITY_OF = {
    "image.png": "image",
    "audio.flac": "audio",
    "audio.m4a": "audio",
    "audio.webm": "audio",
    "video.mp4": "video",
    "video.webm": "video",
    "points.npy": "point",
    "imu.npy": "imu",
    "imu.csv": "imu",
    "cube.off": "point",
    "binary.stl": "point",
    "cloud.xyz": "point",
}


def test_a_text_file_is_sensed_on_request(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("a dog in the snow", encoding="utf-8")
    media = Media.from_path(path, modality="text", weight=2)
    item = load(media)
    assert (item.text, item.weight, item.name) == ("a dog in the snow", 2.0, "words.txt")


def test_a_wrong_file_ending_does_not_matter(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(PNG)
    assert load(Media.from_path(path)).pixels.size == (40, 30)


# --- house rules ----------------------------------------------------------------------------


def test_importing_media_loads_neither_torch_nor_langchain():
    code = (
        "import sys, ibllm_tools.media\n"
        "assert not {'torch', 'langchain', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist():
    media = importlib.import_module("ibllm_tools.media")
    assert media.__all__ == sorted(
        media.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n)
    )
    assert all(hasattr(media, name) for name in media.__all__)


def test_the_policy_is_frozen_and_strict():
    policy = MediaPolicy()
    assert policy.allowed_dirs == ()
    assert policy.allowed_hosts == ()
    for wrong in ({"max_bytes": 0}, {"max_seconds": float("nan")}, {"unknown": 1}):
        with pytest.raises(ValueError, match="validation error"):
            MediaPolicy(**wrong)
    with pytest.raises(ValueError, match="frozen"):
        policy.max_bytes = 5
