"""The scorecard, on a few media and the shipped model, as a user runs it."""

import json

import pytest
from small_pack import CONCEPTS, photo, table, write_pack
from typer.testing import CliRunner

from ibllm_tools.cli import app
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.evaluate import SECTIONS, Scorecard, evaluate
from ibllm_tools.evaluate.card import as_markdown
from ibllm_tools.evaluate.targets import TARGETS


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    pytest.importorskip("pyarrow")
    return write_pack(tmp_path_factory.mktemp("data") / "pack")


@pytest.fixture(scope="module")
def card(pack):
    quick = [name for name in SECTIONS if name not in {"cache", "speed"}]
    return evaluate(pack, sections=quick, limit=2, progress=False)


def test_every_part_of_the_scorecard_is_measured(card):
    found = {s.name: {m.name: m for m in s.measures} for s in card.sections}
    for section in ("names", "mixing", "language", "unknown"):
        missing = TARGETS[section].keys() - found[section].keys()
        assert not missing, f"{section}: no {missing}"
    for section in card.sections:
        for m in section.measures:
            assert m.value is None or m.unit in {"words", "points"} or 0 <= m.value <= 1, m
            assert m.low is None or m.low <= m.value + 1e-9 <= m.high + 2e-9, m
    assert found["names"]["photos.right"].n == 2
    assert card.media == {"photos": 2, "sounds": 2, "shapes": 2}


def test_batched_answers_are_those_of_the_chat_model(card):
    same = card.section("names").find("same_as_chat")
    assert same.n == 6
    assert same.value == 1.0


def test_the_json_of_a_scorecard_reads_back_the_same(card):
    text = card.to_json()
    again = Scorecard.from_json(text)
    assert again.to_json() == text
    marks = {m["mark"] for s in json.loads(text)["sections"] for m in s["measures"]}
    assert marks <= {"met", "missed", "no target", "no data"}
    with pytest.raises(ConfigurationError, match="no scorecard"):
        Scorecard.from_json('{"sections": 3}')


def test_the_model_card_names_the_command_that_gives_each_table_again(card):
    text = as_markdown(card)
    for section in card.sections:
        assert f"### {section.title}" in text
        assert f"ibllm eval pocket --data DIR --limit 2 --sections {section.name}" in text
    assert "| photos: right concept | 2 |" in text


def test_everything_can_be_asked_through_the_chat_model_alone(pack, card):
    slow = evaluate(pack, sections=["mixing"], limit=2, through="chat", progress=False)
    [mixing] = slow.sections
    before = card.section("mixing")
    assert [m.value for m in mixing.measures] == [m.value for m in before.measures]
    assert mixing.details["examples"] == before.details["examples"]


def test_the_command_line_prints_json_and_writes_pictures(pack, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    words = ["eval", "pocket", "--data", str(pack), "--limit", "2", "--sections", "names,mixing"]
    done = CliRunner().invoke(app, [*words, "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert [s["name"] for s in card["sections"]] == ["names", "mixing"]
    assert json.loads((out / "scorecard.json").read_text("utf-8")) == card
    names = {path.name for path in out.glob("*.png")}
    assert {"scorecard.png", "mixing.png", "confusions-photos.png"} <= names
    printed = CliRunner().invoke(app, ["eval", "card", str(out / "scorecard.json")])
    assert printed.stdout.startswith("Measured on the `val` split (2 photos, 2 sounds, 2 shapes)")


def test_thin_data_is_told_in_words_and_never_a_crash(tmp_path):
    pytest.importorskip("pyarrow")
    name, blob = photo("dog")
    strange = {"dog": "dog", "gadget": "gadget"}
    table(tmp_path, "photos", "jpeg", [(name, blob), ("gadget", b"broken")], "test", strange)
    (tmp_path / "sounds.parquet").write_bytes((tmp_path / "photos.parquet").read_bytes())
    quick = ["names", "cache", "mixing", "unknown"]
    card = evaluate(tmp_path, split="test", sections=quick, progress=False, limit=1)
    notes = " ".join([*card.notes, *(n for s in card.sections for n in s.notes)])
    assert "expected ogg" in notes
    assert "has no shapes.parquet" in notes
    assert "needs photos and sounds" in notes
    assert card.section("mixing").measures == []
    empty = evaluate(tmp_path, split="nowhere", sections=["names"], progress=False)
    assert "the file has test" in " ".join(empty.notes)


def test_wrong_usage_is_refused_by_name(pack, tmp_path):
    with pytest.raises(ConfigurationError, match="smells"):
        evaluate(pack, sections=["smells"])
    with pytest.raises(ConfigurationError, match="no folder"):
        evaluate(tmp_path / "nothing")
    done = CliRunner().invoke(app, ["eval", "pocket", "--data", str(pack), "--through", "mail"])
    assert done.exit_code == 2


def test_concepts_that_the_model_never_learnt_count_as_unknown(tmp_path):
    pytest.importorskip("pyarrow")
    _, blob = photo("dog")
    table(tmp_path, "photos", "jpeg", [("gadget", blob)], "val", {**CONCEPTS, "gadget": "gadget"})
    card = evaluate(tmp_path, sections=["names", "unknown"], progress=False)
    assert card.section("unknown").find("never").n == 1
    assert "never learnt" in card.section("names").find("photos.right").note


@pytest.mark.slow
def test_times_are_taken_in_a_process_of_their_own(pack):
    [speed] = evaluate(pack, sections=["speed"], limit=2, progress=False).sections
    assert speed.find("size").mark == "met"
    assert speed.find("load").value > 0
    assert speed.find("first").n == 2
