"""Cleaning: what was planted in a store is found, and what was sound stays."""

import json

import numpy as np
import pytest
import torch
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from ibllm_tools.cli import app
from ibllm_tools.data.cleaning import CleaningOptions, clean, write_kept
from ibllm_tools.data.cleaning.languages import detect_language
from ibllm_tools.data.cleaning.near_duplicates import find_near_duplicates
from ibllm_tools.data.store import (
    EncoderIdentity,
    FeatureStore,
    FeatureWriter,
    StoredMedium,
    StoredRow,
    identify_encoder,
)
from ibllm_tools.engine import open_senses
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.media import Text

WIDTH = 64
LETTERS = EncoderIdentity("letters", "0" * 16, WIDTH)
THINGS = [
    *("dog", "cat", "boat", "car", "tree", "house", "piano", "guitar", "horse", "sheep"),
    *("lamp", "chair", "clock", "door", "bus"),
]


class Letters:
    """An encoder whose vector of a text is drawn from the text: equal texts, equal vectors."""

    def embed(self, rows):
        return torch.stack([self.vector(items[0].text) for items in rows])

    @staticmethod
    def vector(text, noise=0.0, seed=0):
        draw = torch.Generator().manual_seed(sum(map(ord, text)) * 7919 + len(text))
        own = torch.nn.functional.normalize(torch.randn(WIDTH, generator=draw), dim=0)
        draw.manual_seed(seed)
        other = torch.nn.functional.normalize(torch.randn(WIDTH, generator=draw), dim=0)
        return torch.nn.functional.normalize(own + noise * other, dim=0)


def row(id_, text, vector=None, key=None, question="What is it?"):
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": text})
    if vector is None:
        return StoredRow(id_, messages, (), torch.zeros(0, WIDTH))
    return StoredRow(id_, messages, (StoredMedium(key or f"{id_}.jpg", "image"),), vector[None])


def store_of(folder, rows, encoder=LETTERS):
    with FeatureWriter(folder, encoder) as writer:
        for one in rows:
            writer.append(one, one.features)
        return writer.finish()


def caption(i):
    return f"a photo of the {THINGS[i % 15]} number {i // 15}"


@pytest.fixture
def sound_rows():
    """60 rows whose media are like their texts (cosine about 0.9), all different."""
    return [row(f"r{i}", caption(i), Letters.vector(caption(i), 0.45, i)) for i in range(60)]


def gone(store, cleaning):
    return {store[i].id for i in np.flatnonzero(~cleaning.kept)}


def test_nothing_goes_from_sound_rows(tmp_path, sound_rows):
    options = CleaningOptions(
        languages=("en",), min_words=3, max_words=20, min_similarity=0.5, near_duplicate=0.97
    )
    found = clean(store_of(tmp_path / "s", sound_rows), options, Letters())
    assert found.kept.all()
    assert found.report.removed == {}
    assert sum(found.report.histogram) == found.report.judged == 60


def test_texts_of_other_media_go_by_similarity(tmp_path, sound_rows):
    rows = list(sound_rows)
    for i in range(0, 20, 2):  # swap texts in pairs
        a, b = rows[i], rows[i + 1]
        rows[i] = row(a.id, b.messages[-1]["content"], a.features[0])
        rows[i + 1] = row(b.id, a.messages[-1]["content"], b.features[0])
    store, wrong = store_of(tmp_path / "s", rows), {f"r{i}" for i in range(20)}
    assert gone(store, clean(store, CleaningOptions(min_similarity=0.6), Letters())) == wrong
    found = clean(store, CleaningOptions(keep_share=2 / 3), Letters())
    assert gone(store, found) == wrong
    before, after = found.report.mean_similarity
    assert after > before + 0.2
    assert found.report.examples["low similarity"][0].why.startswith("similarity ")


def test_chinese_is_not_judged_by_an_english_trunk_unless_asked(tmp_path):
    vector = Letters.vector("something else")
    store = store_of(tmp_path / "s", [row("zh", "一只狗在草地上", vector), row("en", "no", vector)])
    found = clean(store, CleaningOptions(min_similarity=0.5), Letters())
    assert gone(store, found) == {"en"}
    asked = CleaningOptions(min_similarity=0.5, judged=("en", "zh"))
    assert gone(store, clean(store, asked, Letters())) == {"en", "zh"}


def test_duplicates_of_rows_and_of_media(tmp_path, sound_rows):
    first = sound_rows[0]
    text, vector = first.messages[-1]["content"], first.features[0]
    same = row("same", f"  {text.upper()} ", vector, "a copy.jpg")
    other_text = row("other", "a thing in a photo", vector, "r0.jpg")
    other_question = row("asked", text, vector, question="Is it large?")
    rows = [other_text, *sound_rows, same, other_question, row("t1", "Yes."), row("t2", "Yes.")]
    store = store_of(tmp_path / "s", rows)
    assert gone(store, clean(store, CleaningOptions())) == {"same", "t2"}
    assert gone(store, clean(store, CleaningOptions(duplicates="off"))) == set()
    found = clean(store, CleaningOptions(duplicates="media"), Letters())
    # The row stays whose text fits best, though another one comes first.
    assert gone(store, found) == {"same", "other", "asked", "t2"}
    examples = found.report.examples
    assert {e.instead_of for e in examples["duplicate medium"]} == {"r0"}
    assert examples["duplicate row"][0].instead_of == "r0"


def test_near_duplicates_keep_the_row_whose_text_fits_best(tmp_path, sound_rows):
    rows = list(sound_rows)
    for i in range(10):
        near = Letters.vector(caption(i), 0.45, i) + 0.02 * Letters.vector(f"noise {i}")
        rows.insert(0, row(f"near{i}", "a thing", near))
        rows.append(row(f"exact{i}", "some other thing", sound_rows[i].features[0]))
    store = store_of(tmp_path / "s", rows)
    found = clean(store, CleaningOptions(near_duplicate=0.97), Letters())
    assert gone(store, found) == {f"{kind}{i}" for kind in ("near", "exact") for i in range(10)}
    assert found.report.groups == {3: 10}
    # Without the encoder the first one stays.
    blind = gone(store, clean(store, CleaningOptions(near_duplicate=0.97)))
    assert blind == {f"{kind}{i}" for kind in ("r", "exact") for i in range(10)}


def test_language_length_and_repeated_captions(tmp_path):
    texts = {
        "fine": "a dog on the grass",
        "short": "dog",
        "long": "a dog and " * 30,
        "german": "ein Hund steht auf dem Gras und schaut",
        "zh": "一只狗在草地上",
        "zh short": "狗",
        "zh long": "狗" * 90,
    }
    rows = [row(name, text, Letters.vector(name)) for name, text in texts.items()]
    rows += [row(f"stock{i}", "a stock photo", Letters.vector(f"stock{i}")) for i in range(5)]
    rows += [row(f"twice{i}", "two of them", Letters.vector(f"twice{i}")) for i in range(2)]
    rows += [row(f"says{i}", "a stock photo") for i in range(3)]  # no media: no repeat of one
    store = store_of(tmp_path / "s", rows)
    options = CleaningOptions(
        languages=("en", "zh"),
        min_words=2,
        max_words=20,
        min_characters=3,
        max_characters=50,
        max_repeats=2,
        duplicates="off",
    )
    found = clean(store, options)
    wanted = {name for name in texts if name not in {"fine", "zh"}}
    assert gone(store, found) == wanted | {f"stock{i}" for i in range(5)}
    assert found.report.removed == {
        "language": 1,
        "too short": 2,
        "too long": 2,
        "repeated caption": 5,
    }
    assert found.report.languages == {"en": 13, "zh": 3, "other": 1}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "A man in a red shirt is standing next to his horse."),
        ("en", "dog"),
        ("en", "two dogs, running"),
        ("en", "A café in Zürich with a view of the lake"),
        ("en", "a white van parked on the street"),
        ("zh", "一个男人站在他的马旁边。"),
        ("zh", "一只猫, cat"),
        ("zh", "狗"),
        ("other", "犬が草の上に座っています。"),
        ("other", "개가 풀밭에 앉아 있다"),
        ("other", "Собака сидит на траве"),
        ("other", "كلب يجلس على العشب"),
        ("other", "Ein Mann steht neben seinem Pferd auf der Wiese."),
        ("other", "Un homme est debout à côté de son cheval dans un champ."),
        ("other", "Un perro está sentado en la hierba con una pelota."),
        ("other", "Um cachorro está sentado na grama com uma bola."),
        ("other", "Un cane è seduto sull'erba con una palla."),
        ("other", "Een hond zit op het gras naast een bal."),
        ("other", "Pies siedzi na trawie obok piłki i patrzy się na drzewo."),
        ("other", "Çimlerin üzerinde oturan bir köpek ve top."),
        ("other", "123 456 !!"),
        ("other", ""),
    ],
)
def test_languages(language, text):
    assert detect_language(text) == language


def planted(n, copies, width=32, seed=0):
    """Unit vectors of which each of the first `copies` has a near copy at the end."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(40, width))
    vectors = centres[draw.integers(0, 40, n)] + 0.8 * draw.normal(size=(n, width))
    copied = vectors[:copies] + 0.05 * draw.normal(size=(copies, width))
    vectors = np.concatenate([vectors, copied]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("part_rows", [100_000, 500])
def test_near_duplicates_in_parts_are_those_of_one_comparison(part_rows):
    vectors, copies = planted(4000, 300), 300
    asked = []

    def gather(rows):
        asked.append(len(rows))
        return vectors[rows]

    quality = np.zeros(len(vectors), np.float32)
    found = find_near_duplicates(gather, quality, 0.97, part_rows=part_rows)
    similar = vectors @ vectors.T
    kept = found.leader < 0
    pairs = np.argwhere(np.triu(similar >= 0.97, 1))
    missed = sum(kept[a] and kept[b] for a, b in pairs)
    assert missed <= (0 if part_rows > 5000 else 0.02 * len(pairs))
    assert (~kept).sum() >= 0.98 * copies
    for gone_row in np.flatnonzero(~kept):
        assert kept[found.leader[gone_row]]
        assert found.similarity[gone_row] >= 0.97
    assert max(asked) <= (512 if part_rows > 5000 else 256 * 18)


def test_a_slowly_changing_chain_is_not_one_group():
    angles = np.arange(200) * 0.1
    vectors = np.stack([np.cos(angles / 10), np.sin(angles / 10)], 1).astype(np.float32)
    found = find_near_duplicates(lambda rows: vectors[rows], np.zeros(200, np.float32), 0.995)
    kept = np.flatnonzero(found.leader < 0)
    assert len(kept) >= 8
    similar = vectors[kept] @ vectors[kept].T - 2 * np.eye(len(kept))
    assert similar.max() < 0.995


def test_the_new_store_holds_the_rows_that_stay_and_the_old_one_is_as_it_was(tmp_path, sound_rows):
    rows = [*sound_rows, row("wrong", caption(3), Letters.vector("x")), row("text", "Only text.")]
    store = store_of(tmp_path / "s", rows)
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    found = clean(store, CleaningOptions(min_similarity=0.5), Letters())
    new = write_kept(store, found, tmp_path / "new")
    assert [r.id for r in new] == [r.id for r in rows if r.id != "wrong"]
    assert torch.equal(new[5].features, store[5].features)
    assert new[5].messages == store[5].messages
    assert new[-1].media == ()
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
    for folder in (tmp_path / "s", tmp_path / "s" / "in", tmp_path / "new"):
        with pytest.raises(ConfigurationError, match="choose another folder"):
            write_kept(store, found, folder)
    found.kept[:] = False
    with pytest.raises(ConfigurationError, match="none stays"):
        write_kept(store, found, tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_similarity": 0.2, "keep_share": 0.5}, "give one of them"),
        ({"keep_share": 80}, "expected 0.0 to 1.0"),
        ({"near_duplicate": 0.2}, "expected 0.5 to 1.0"),
        ({"languages": ("fr",)}, "expected en, zh, other"),
    ],
)
def test_options_that_cannot_be(options, match):
    with pytest.raises(ConfigurationError, match=match):
        CleaningOptions(**options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def real_store(model, tmp_path_factory):
    """Media near their texts' vectors by the tiny model's own text trunk; two are swapped."""
    senses = open_senses(str(model), device="cpu", dtype="float32")
    texts = [caption(i) for i in range(12)]
    own = senses.embed([[Text(text=text)] for text in texts])
    centred = torch.nn.functional.normalize(own - own.mean(0), dim=-1)
    vectors = torch.nn.functional.normalize(own + 0.5 * centred, dim=-1)
    vectors = torch.cat([vectors, vectors[:1], -vectors[1:2]])
    texts += [texts[0], "a photo of the wrong thing"]
    identity = identify_encoder(senses.encoder, senses.config, "tiny")
    width = identity.joint_dim
    rows = []
    for i, (text, vector) in enumerate(zip(texts, vectors, strict=True)):
        one = row(f"r{i}", text, vector)
        rows.append(StoredRow(one.id, one.messages, one.media, vector[None, :width]))
    folder = tmp_path_factory.mktemp("stores") / "s"
    store_of(folder, rows, identity)
    return folder


def run(*args):
    return CliRunner().invoke(app, ["clean", *map(str, args)], env={"COLUMNS": "140"})


def test_the_command_writes_store_report_and_picture(real_store, model, tmp_path):
    out = tmp_path / "clean"
    done = run(real_store, "--out", out, "--min-similarity", "0", "--model", model)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "low similarity" in done.stdout
    assert "duplicate row" in done.stdout
    assert [r.id for r in FeatureStore.open(out)] == [f"r{i}" for i in range(12)]
    report = json.loads((out / "cleaning.json").read_text(encoding="utf-8"))
    assert report["removed"] == {"duplicate row": 1, "low similarity": 1}
    assert report["examples"]["low similarity"][0]["id"] == "r13"
    assert (out / "cleaning.png").read_bytes()[:4] == b"\x89PNG"


def test_a_dry_run_writes_nothing(real_store, model, tmp_path):
    done = run(real_store, "--dry-run", "--near-duplicate", "0.99", "--model", model, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert json.loads(done.stdout)["rows"] == 14
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_of_the_command(real_store, model, tmp_path):
    assert run(real_store).exit_code == 2
    assert run(real_store, "--dry-run", "--out", tmp_path / "x").exit_code == 2
    assert run(real_store, "--dry-run", "--duplicates", "all").exit_code == 2
    wrong = run(real_store, "--dry-run", "--min-similarity", "0.1")  # pocket did not make it
    assert isinstance(wrong.exception, CheckpointError)
    inside = run(real_store, "--out", real_store / "x", "--model", model)
    assert isinstance(inside.exception, ConfigurationError)
