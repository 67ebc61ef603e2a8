"""Tar shards: img2dataset's form, shards that are cut off, and shards made to do harm."""

import gzip
import io
import json
import tarfile

import pytest
from media_samples import encode_npy, encode_picture, encode_sound

from ibllm_tools.data.sources import open_source
from ibllm_tools.errors import DataError, MediaError
from ibllm_tools.media import MediaPolicy, load


def member(name, data=b"", type_=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type_, link, len(data)
    return info, data


def shard(path, members, mode="w", format_=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format_) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def row(index, caption="a dog"):
    """What img2dataset writes for one picture."""
    key, picture = f"{index:09d}", encode_picture("JPEG")
    notes = {"key": key, "caption": caption, "url": "http://x/1.jpg", "status": "success"}
    return [
        member(f"{key}.jpg", picture),
        member(f"{key}.json", json.dumps(notes).encode()),
        member(f"{key}.txt", caption.encode()),
    ]


def captions(source):
    return [example.messages[-1]["content"] for example in source]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_img2dataset_shards(tmp_path, mode, format_):
    name = "00000.tar" if mode == "w" else "00000.tar.gz"
    path = shard(tmp_path / name, row(0, "one") + row(1, "two"), mode, format_)
    first, second = open_source(path)
    assert [e.messages[-1]["content"] for e in (first, second)] == ["one", "two"]
    assert first.messages[0]["content"] == "Generate caption of this image"
    assert second.media[0].key == f"{name}/000000001.jpg"
    # A reference outlives the pass that made it.
    assert load(first.media[0].block()).pixels.size == (40, 30)


def test_other_media_and_long_names(tmp_path):
    long = "a" * 150 + "/" + "b" * 120
    members = [
        member(f"{long}.flac", encode_sound("FLAC")),
        member(f"{long}.txt", "狗叫".encode()),
        member("room.depth.npy", encode_npy(__import__("numpy").ones((4, 4), "f4"))),
        member("room.json", b'{"caption": "a room", "weight": 0.5, "image": "/etc/passwd"}'),
        member("mix.png", encode_picture("PNG")),
        member("mix.wav", encode_sound()),
        member("mix.cls", b"7"),
        member(
            "mix.json",
            json.dumps(
                {
                    "conversations": [
                        {"from": "human", "value": "<image>What?"},
                        {"from": "gpt", "value": "Both."},
                    ]
                }
            ).encode(),
        ),
    ]
    for format_ in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        sound, room, mix = open_source(shard(tmp_path / "a.tar", members, format_=format_))
        assert sound.media[0].key == f"a.tar/{long}.flac"
        assert sound.media[0].block().modality == "audio"
        assert [(m.modality, m.weight) for m in room.media] == [("depth", 0.5)]
        assert [m.modality for m in mix.media] == ["image", "audio"]
        assert mix.messages[0]["content"] == "What?"


def test_shards_by_brace_range_glob_and_folder(tmp_path):
    for index in range(3):
        shard(tmp_path / f"{index:05d}.tar", row(index, f"row {index}"))
    (tmp_path / "00000.parquet").write_bytes(b"what img2dataset writes beside a shard")
    wanted = ["row 0", "row 1", "row 2"]
    source = open_source(f"{tmp_path}/{{00000..00003}}.tar")
    assert captions(source) == wanted
    assert source.report.skipped == {"file cannot be read": 1}
    assert captions(open_source(f"{tmp_path}/0*.tar")) == wanted
    assert captions(open_source(tmp_path)) == wanted
    with pytest.raises(DataError, match="found no file"):
        open_source(f"{tmp_path}/{{9..12}}.tar")


@pytest.mark.parametrize("packed", [False, True])
def test_every_cut_keeps_the_whole_rows_and_reports_the_rest(tmp_path, packed):
    whole = shard(tmp_path / "whole.tar", row(0) + row(1) + row(2)).read_bytes()
    starts = [whole.index(f"{i:09d}.jpg".encode()) for i in range(3)]
    ends = [*starts[1:], whole.index(b"\0" * 1024, starts[2])]
    for cut in range(1000, len(whole), 700):
        data = whole[:cut]
        path = tmp_path / ("cut.tar.gz" if packed else "cut.tar")
        # A stream that stops: gzip's own end mark is missing as well.
        path.write_bytes(gzip.compress(data, 1)[:-8] if packed else data)
        source = open_source(path)
        whole_rows = sum(end <= cut for end in ends)
        found = []
        try:
            found = captions(source)
        except DataError:
            assert whole_rows == 0
        assert len(found) in {whole_rows, whole_rows + 1}, cut  # its text may be cut off alone
        if cut < ends[2]:
            assert source.report.skipped.get("tar is cut off or damaged") == 1, cut


def test_damage_in_the_middle_is_reported(tmp_path):
    data = bytearray(shard(tmp_path / "a.tar", row(0) + row(1)).read_bytes())
    at = data.index(b"000000001.jpg")
    data[at : at + 300] = b"\x07" * 300
    (tmp_path / "a.tar").write_bytes(data)
    source = open_source(tmp_path / "a.tar")
    assert captions(source) == ["a dog"]
    assert "no tar header" in source.report.samples["tar is cut off or damaged"][0]


def test_hostile_members_are_neither_extracted_nor_followed(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    picture = encode_picture("PNG")
    members = [
        member("a.png", type_=tarfile.SYMTYPE, link="/etc/hostname"),
        member("a.txt", type_=tarfile.LNKTYPE, link="../secret.txt"),
        member("b.png", type_=tarfile.CHRTYPE),
        member("c.png", type_=tarfile.FIFOTYPE),
        member("../d.png", picture),
        member("/tmp/e.png", picture),
        member("x/../../f.png", picture),
        member("x", type_=tarfile.DIRTYPE),
        *row(7, "fine"),
    ]
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "in").mkdir()
    source = open_source(shard(tmp_path / "in" / "a.tar", members))
    assert captions(source) == ["fine"]
    assert source.report.skipped == {
        "tar member is no plain file": 4,
        "tar member has an unsafe name": 3,
    }
    after = {path for path in tmp_path.rglob("*") if "in" not in path.parts[-2:]}
    assert sorted(after) == before


def test_members_beyond_the_limits_cost_their_row(tmp_path):
    members = [
        *[member("a.png", b"\x89PNG" + bytes(4000)), member("a.txt", b"big")],
        *[member("b.png", encode_picture("PNG")), member("b.txt", bytes(2**20 + 1))],
        *[member("c.png", encode_picture("PNG")), member("c.txt", b"\xff\xfe")],
        *[member("d.png", encode_picture("PNG")), member("d.json", b"{")],
        *row(9, "fine"),
    ]
    source = open_source(shard(tmp_path / "a.tar", members), policy=MediaPolicy(max_bytes=2000))
    assert captions(source) == ["fine"]
    assert source.report.skipped == {
        "tar member is too large": 2,
        "broken text": 1,
        "broken JSON": 1,
    }


def test_headers_that_lie_about_sizes(tmp_path):
    def lying(size_field, type_=b"0", name=b"b.png"):
        info, _ = member(name.decode())
        block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        block[124:136], block[156:157] = size_field, type_
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    good = shard(tmp_path / "good.tar", row(0)).read_bytes()
    good = good[: good.index(b"\0" * 1024, good.index(b"000000000.txt") + 600)]
    good += bytes(-len(good) % 512)
    negative, huge = b"\xff" * 12, b"\x80" + b"\x7f" * 11
    for block in (
        lying(negative),
        lying(huge),
        lying(b"77777777777\0", b"x"),
        lying(b"77777777777\0", b"L"),
        lying(b"not octal\0\0\0"),
    ):
        path = tmp_path / "a.tar"
        path.write_bytes(good + block + bytes(20_000))
        source = open_source(path)
        assert captions(source) == ["a dog"]
        assert source.report.skipped == {"tar is cut off or damaged": 1}


def test_a_shard_that_shrinks_after_it_was_listed(tmp_path):
    path = shard(tmp_path / "a.tar", row(0))
    (example,) = open_source(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(MediaError, match="ends early"):
        example.media[0].block()
