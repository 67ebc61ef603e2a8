"""Training data in the formats that people have, read the way that `ibllm` reads it."""

import base64
import csv
import io
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from media_samples import encode_picture, encode_sound, sample
from PIL import Image

from ibllm_tools.data.sources import open_source
from ibllm_tools.errors import DataError, MediaError
from ibllm_tools.media import MediaPolicy, load


@pytest.fixture
def folder(tmp_path):
    """A media root with a picture, a sound, a shape and a depth map; a secret lies beside it."""
    root = tmp_path / "root"
    (root / "pics").mkdir(parents=True)
    (root / "pics" / "dog.jpg").write_bytes(encode_picture("JPEG"))
    (root / "dog.wav").write_bytes(encode_sound())
    (root / "car.ply").write_bytes(sample("ascii.ply"))
    (root / "room.depth.png").write_bytes(encode_picture("PNG"))
    (tmp_path / "secret.jpg").write_bytes(encode_picture("JPEG"))
    return root


def talk(question="<image>\nWhat is it?", answer="A dog.", **more):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "r1", "image": "pics/dog.jpg", "conversations": turns, **more}


def write(folder, rows, name="rows.json"):
    path = folder / name
    text = "\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows)
    path.write_text(text, encoding="utf-8")
    return path


def said(example):
    return [(message["role"], message["content"]) for message in example.messages]


def only(source):
    (example,) = source
    return example


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_llava_rows(folder, name):
    rows = [talk(), talk("Is it a cat?\n<image>", "No.", id=7)]
    first, second = open_source(write(folder, rows, name))
    assert said(first) == [("user", "What is it?"), ("assistant", "A dog.")]
    assert said(second)[0] == ("user", "Is it a cat?")
    assert (first.id, second.id) == ("r1", "7")
    (medium,) = first.media
    assert (medium.key, medium.modality, medium.weight) == ("pics/dog.jpg", "image", 1.0)
    assert load(medium.block()).pixels.size == (40, 30)


def test_alpaca_rows_have_no_media(folder):
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {
            "instruction": "And 4?",
            "input": "",
            "output": "7",
            "system": "Be short.",
            "history": [["1 2", "3"]],
        },
        {"instruction": "Say nothing.", "output": " "},
        {"instruction": "What does <video> mean in HTML?", "output": "A <video> element."},
    ]
    source = open_source(write(folder, rows), format="alpaca")
    first, second, third = source
    assert said(first) == [("user", "Add.\n\n1 2"), ("assistant", "3")]
    assert [role for role, _ in said(second)] == [
        *["system", "user", "assistant", "user", "assistant"]
    ]
    assert said(third)[0][1] == "What does <video> mean in HTML?"
    assert first.media == ()
    assert source.report.skipped == {"empty answer": 1}


def test_sharegpt_roles_and_several_media(folder):
    turns = [
        {"from": "system", "value": "You hear and see."},
        {"from": "gpt", "value": "Hello!"},
        {"from": "human", "value": "<image><audio>"},
        {"from": "human", "value": "What are <image> and <audio> of?"},
        {"from": "function_call", "value": '{"name": "look"}'},
        {"from": "observation", "value": "a dog"},
        {"from": "gpt", "value": "Both of a dog."},
        {"from": "human", "value": "Thanks."},
    ]
    row = {"conversations": turns, "images": ["pics/dog.jpg"] * 2, "audios": ["dog.wav"] * 2}
    source = open_source(write(folder, [row]))
    example = only(source)
    assert said(example) == [
        ("system", "You hear and see."),
        ("user", "What are and of?"),
        ("assistant", '{"name": "look"}'),
        ("user", "a dog"),
        ("assistant", "Both of a dog."),
    ]
    assert [medium.modality for medium in example.media] == ["image", "image", "audio", "audio"]
    assert len(source.report.notes) == 4  # greeting, joined turns, tool result, last question
    assert example.id == "rows.json:1"


def test_own_rows_say_modality_and_weight(folder):
    (folder / "room.png").write_bytes(encode_picture("PNG"))
    media = [
        {"path": "pics/dog.jpg", "weight": 0.25},
        {"path": "room.png", "modality": "depth", "weight": 2},
        {"path": "room.depth.png"},
    ]
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
        {"role": "assistant", "content": "A room."},
    ]
    example = only(open_source(write(folder, [{"messages": messages, "media": media}], "a.jsonl")))
    assert [(m.modality, m.weight) for m in example.media] == [
        ("image", 0.25),
        ("depth", 2.0),
        ("depth", 1.0),
    ]
    assert example.media[1].block().modality == "depth"
    assert said(example)[0] == ("user", "What?")


@pytest.mark.parametrize(
    ("head", "separator", "name"),
    [
        ("url\tcaption", "\t", "released.csv"),
        ("caption,path", ",", "comma.csv"),
        ("TEXT\tURL", "\t", "laion.tsv"),
        ("image;text;width", ";", "semi.csv"),
    ],
)
def test_tables_of_path_and_caption(folder, head, separator, name):
    values = {"path": "pics/dog.jpg", "caption": 'a "dog", brown;\tand big', "width": "3"}
    values |= {"url": values["path"], "image": values["path"], "text": values["caption"]}
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    columns = head.split(separator)
    writer.writerows([columns, [values[column.lower()] for column in columns]])
    (folder / name).write_text("\ufeff" + text.getvalue(), encoding="utf-8")
    example = only(open_source(folder / name))
    assert said(example) == [
        ("user", "Generate caption of this image"),
        ("assistant", 'a "dog", brown;\tand big'),
    ]
    assert example.media[0].key == "pics/dog.jpg"
    assert example.id == f"{name}:2"


def test_a_broken_table_costs_only_its_rows(folder):
    lines = [
        b"path,caption",
        b"pics/dog.jpg,one",
        b"pics/dog.jpg,two,three",
        b"pics/dog.jpg,\xff\xfe",
        b"pics/dog.jpg," + b"x" * 200_000,
        b"pics/dog.jpg,",
        b"",
        b"pics/dog.jpg,four",
    ]
    (folder / "a.csv").write_bytes(b"\n".join(lines))
    source = open_source(folder / "a.csv")
    assert [said(example)[1][1] for example in source] == ["one", "four"]
    assert source.report.read == 6
    assert source.report.skipped == {
        "another number of columns": 1,
        "text is not valid Unicode": 1,
        "broken row": 1,
        "empty caption": 1,
    }
    assert source.report.samples["broken row"][0].startswith("a.csv:5")
    json.dumps(source.report.as_dict(), ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (talk(image="pics/cat.jpg"), "missing file"),
        (talk(image="../secret.jpg"), "file outside the media root"),
        (talk(image="link.jpg"), "file outside the media root"),
        (talk(image="/etc/passwd"), "file outside the media root"),
        (talk(image="pics"), "missing file"),
        (talk(image="a\0b.jpg"), "missing file"),
        (talk(image="http://example.com/a.jpg"), "URL not allowed"),
        (talk(image="file:///etc/passwd"), "URL not allowed"),
        (talk(image=None), "placeholder without medium"),
        (talk("<image><image> Which?"), "placeholder without medium"),
        (talk(answer=" "), "empty answer"),
        (talk(answer="\ud800"), "text is not valid Unicode"),
        (talk(weight=-1), "bad modality or weight"),
        (talk(modality="smell"), "bad modality or weight"),
        (talk(image=[7]), "no medium in its column"),
        (talk(conversations=[{"from": "human", "value": "Hi"}]), "no assistant turn"),
        (talk(conversations=[{"from": "robot", "value": "Hi"}]), "unknown role"),
        (talk(conversations="Hi"), "no conversation"),
        (talk(conversations=[{"from": "human", "value": 3}]), "no text in a turn"),
        ({"caption": "a dog"}, "no medium"),
        ({"image": "pics/dog.jpg", "caption": " "}, "empty caption"),
        ([1, 2], "row is no object"),
    ],
)
def test_a_bad_row_is_counted_with_its_reason_and_place(folder, row, reason):
    (folder / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    source = open_source(write(folder, [talk(), row, talk()], "rows.jsonl"))
    assert len(list(source)) == 2
    assert source.report.skipped == {reason: 1}
    assert source.report.samples[reason][0].startswith("rows.jsonl:2: ")
    assert source.report.read == 3
    assert any(reason in line for line in source.report.lines())


def test_a_broken_line_costs_itself_and_a_broken_array_its_rest(folder):
    good = json.dumps(talk())
    lines = [good, "{broken", "[" * 100_000, good, "\xff"]
    (folder / "a.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    source = open_source(folder / "a.jsonl")
    assert len(list(source)) == 2
    assert source.report.skipped == {"broken JSON": 2, "broken text": 1}
    (folder / "a.json").write_text(f"[{good}, {good}, {{broken }}, {good}]")
    source = open_source(folder / "a.json")
    assert len(list(source)) == 2
    assert "nothing after it" in source.report.samples["broken JSON"][0]
    (folder / "cut.json").write_text(f"[{good}, {good}, {good[:40]}")
    source = open_source(folder / "cut.json")
    assert len(list(source)) == 2
    assert source.report.read == 3


def test_json_arrays_are_read_without_holding_the_file(folder):
    filler = "word " * 2000
    with (folder / "big.json").open("w") as file:
        file.write("[")
        for i in range(3000):  # 30 MB
            row = {"id": i, "instruction": filler, "output": "é" + "\\" * 3 + '"}]'}
            file.write((", \n" if i else "") + json.dumps(row, ensure_ascii=False))
        file.write("]\n")
    tracemalloc.start()
    try:
        ids = [example.id for example in open_source(folder / "big.json")]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ids == [str(i) for i in range(3000)]
    assert peak < 12e6


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.json", "", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.json", '{"data": []}', "a.json:1"),
        ("a.csv", "x,y\n1,2\n", "known column names.*expected for example url and caption"),
        ("a.parquet", "not parquet", "file is damaged"),
        ("a.xyz", "1 2 3", "found ending '.xyz', expected one of .json"),
        ("a.jsonl", '{"caption": "b"}', "1 rows of which none can be used: 1 × no medium"),
    ],
)
def test_a_wholly_unusable_file_is_an_error(tmp_path, name, text, match):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=match):
        list(open_source(tmp_path / name))


def test_a_file_that_is_not_there_or_a_format_that_is_none(tmp_path):
    with pytest.raises(DataError, match="found no file or folder"):
        open_source(tmp_path / "no.json")
    with pytest.raises(DataError, match="expected one of llava"):
        open_source(tmp_path, format="coco")
    with pytest.raises(DataError, match="expected a path or a Dataset"):
        open_source(7)


def test_a_folder_of_media_with_captions_beside_them(folder):
    for name, text in [("pics/dog.txt", "a dog"), ("dog.txt", "a bark"), ("room.txt", "a room")]:
        (folder / name).write_text(text)
    (folder / "notes.md").write_text("no medium")
    source = open_source(folder)
    examples = list(source)
    assert [e.id for e in examples] == ["dog.wav", "room.depth.png", "pics/dog.jpg"]
    assert [e.media[0].modality for e in examples] == ["audio", "depth", "image"]
    assert said(examples[0])[0] == ("user", "Generate caption of this sound")
    assert said(examples[0])[1] == ("assistant", "a bark")
    assert source.report.skipped == {"no caption file": 1}


def test_an_imagefolder_with_metadata(folder):
    (folder / "metadata.csv").write_text("file_name,text\npics/dog.jpg,a dog\n")
    assert only(open_source(folder)).media[0].key == "pics/dog.jpg"


def test_media_root_moves_where_paths_begin(folder, tmp_path):
    (tmp_path / "lists").mkdir()
    path = write(tmp_path / "lists", [talk()])
    assert only(open_source(path, media_root=folder)).media[0].key == "pics/dog.jpg"
    with pytest.raises(DataError, match="missing file"):
        list(open_source(path))


def test_a_file_swapped_for_a_link_is_not_opened(folder):
    medium = only(open_source(write(folder, [talk()]))).media[0]
    (folder / "pics" / "dog.jpg").unlink()
    (folder / "pics" / "dog.jpg").symlink_to(folder.parent / "secret.jpg")
    with pytest.raises(MediaError, match="outside the allowed"):
        medium.block()


def test_urls_go_through_the_media_policy(folder):
    data = base64.b64encode(encode_picture("PNG")).decode()
    rows = [
        talk(image=f"data:image/png;base64,{data}"),
        talk(image="http://elsewhere.org/a.jpg"),
        talk(image="file:///etc/hostname.jpg"),
    ]
    policy = MediaPolicy(allowed_hosts=("example.com",))
    inline, remote, file = open_source(write(folder, rows), policy=policy)
    assert load(inline.media[0].block()).pixels.size == (40, 30)
    with pytest.raises(MediaError, match=r"elsewhere\.org:80, which is not allowed"):
        remote.media[0].block()
    with pytest.raises(MediaError, match="refused"):
        file.media[0].block()


def test_the_order_is_fixed_and_views_cut_it(folder):
    rows = [{"id": i, "instruction": f"Say {i}", "output": str(i)} for i in range(40)]
    source = open_source(write(folder, rows))
    ids = [example.id for example in source]
    assert ids == [example.id for example in source] == [str(i) for i in range(40)]
    assert [e.id for e in source.take(3)] == ["0", "1", "2"]
    shards = [[e.id for e in source.shard(rank, 3)] for rank in range(3)]
    assert shards[1] == ids[1::3]
    assert sorted((i for shard in shards for i in shard), key=int) == ids
    drawn = [[e.id for e in source.shuffle(seed, 8)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0], key=int) == ids != drawn[0]
    with pytest.raises(DataError):
        source.shard(3, 3)


def test_references_travel_to_worker_processes(folder):
    example = pickle.loads(pickle.dumps(only(open_source(write(folder, [talk()])))))
    assert example.media[0].block().modality == "image"


def test_several_files_by_glob_and_braces(folder):
    for part in "ab":
        write(folder, [talk(id=part)], f"part-{part}.jsonl")
    write(folder, [talk(id="01")], "n-01.jsonl")
    assert [e.id for e in open_source(f"{folder}/part-*.jsonl")] == ["a", "b"]
    assert [e.id for e in open_source(f"{folder}/part-{{b,a}}.jsonl")] == ["b", "a"]
    source = open_source(f"{folder}/n-{{00..02}}.jsonl")
    assert [e.id for e in source] == ["01"]
    assert source.report.skipped == {"file cannot be read": 2}


def parquet(path, **columns):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_parquet_of_img2dataset_and_of_hugging_face(tmp_path):
    jpeg = encode_picture("JPEG")
    path = parquet(
        tmp_path / "a.parquet",
        jpg=[jpeg, jpeg, b"", jpeg],
        caption=["one", None, "three", "four"],
        url=["http://x/1.jpg"] * 4,
        key=["k1", "k2", "k3", "k4"],
        sha256=["0"] * 4,
    )
    source = open_source(path)
    assert [e.id for e in source] == ["k1", "k3", "k4"]
    assert source.report.skipped == {"empty caption": 1}
    first, third, _ = source
    assert load(first.media[0].block()).pixels.size == (40, 30)
    with pytest.raises(MediaError, match="no bytes"):
        third.media[0].block()
    struct = [{"bytes": encode_sound(), "path": "/home/x/bark.wav"}]
    path = parquet(tmp_path / "b.parquet", audio=struct, text=["a bark"])
    medium = only(open_source(path)).media[0]
    assert (medium.key, medium.modality) == ("b.parquet:1/0.audio/bark.wav", "audio")
    assert medium.block().name == "bark.wav"


def test_parquet_of_the_training_pack(tmp_path):
    cloud = np.random.default_rng(0).uniform(-1, 1, (2048, 3)).astype("<f2")
    path = parquet(
        tmp_path / "shapes.parquet",
        points=[cloud.tobytes()] * 2,
        concept=["car", "dog"],
        split=["train", "val"],
    )
    example = only(open_source(path, split="val"))
    assert said(example) == [("user", "Generate caption of this 3D shape"), ("assistant", "dog")]
    assert np.allclose(load(example.media[0].block()).xyz, cloud.astype(np.float32))


def arrow(folder, columns):
    pa = pytest.importorskip("pyarrow")
    folder.mkdir(parents=True)
    table = pa.table(columns)
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as file:
        file.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))


def test_a_folder_of_save_to_disk(tmp_path):
    columns = {"image": [{"bytes": encode_picture("PNG"), "path": None}] * 3, "caption": [*"abc"]}
    arrow(tmp_path / "plain", columns)
    assert [said(e)[1][1] for e in open_source(tmp_path / "plain")] == ["a", "b", "c"]
    arrow(tmp_path / "dict" / "test", columns)
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    with pytest.raises(DataError, match="expected one of \\['test'\\]"):
        list(open_source(tmp_path / "dict"))
    assert len(list(open_source(tmp_path / "dict", split="test"))) == 3


@pytest.mark.parametrize("files", [[{"filename": "../x.arrow"}], [], "x", [{"filename": None}]])
def test_a_hostile_index_of_a_saved_dataset(tmp_path, files):
    pytest.importorskip("pyarrow")
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": files}))
    with pytest.raises(DataError, match="save the dataset again"):
        list(open_source(tmp_path))


def test_a_dataset_object(tmp_path):
    datasets = pytest.importorskip("datasets")
    picture = {"bytes": encode_picture("PNG"), "path": None}
    dataset = datasets.Dataset.from_dict({"image": [picture] * 2, "caption": ["a", "b"]})
    dataset = dataset.cast_column("image", datasets.Image())
    for object_ in (dataset, dataset.to_iterable_dataset()):
        first, second = open_source(object_)
        assert (said(first)[1][1], second.media[0].block().modality) == ("a", "image")
    dataset.save_to_disk(tmp_path / "saved")
    assert len(list(open_source(tmp_path / "saved"))) == 2


def test_rows_with_decoded_media():
    rows = [
        {"image": Image.new("RGB", (9, 5)), "caption": "black"},
        {"audio": {"array": np.zeros(800), "sampling_rate": 8000, "path": None}, "text": "silence"},
    ]
    picture, sound = open_source(rows)
    assert load(picture.media[0].block()).pixels.size == (9, 5)
    assert load(sound.media[0].block()).duration_s == pytest.approx(0.1)
