"""The demo, on a tiny random model: what it prints, and the picture that it draws."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny_model import CONCEPTS, save_tiny_model

from ibllm_tools.demo import MEDIA_FOLDER, SHOTS, Result, concept_names, run
from ibllm_tools.demo_picture import draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo.png"
    text = io.StringIO()
    results = run(out, str(folder), Console(file=text, width=120))
    return results, text.getvalue(), out


def test_every_kind_of_medium_is_asked_about(done):
    results, _, _ = done
    kinds = [result.shot.kind for result in results]
    assert kinds == ["photo", "sound", "3D shape", "video", "mixture"]
    assert sum(len(result.shot.parts) > 1 for result in results) == 1


def test_question_answer_concepts_and_times_are_printed(done):
    results, text, out = done
    flat = " ".join(text.split())
    for result in results:
        assert result.shot.question in text
        assert "".join(result.answer.split()) in "".join(text.split())
        assert len(result.nearest) == 3
        similarities = [value for _, value in result.nearest]
        assert similarities == sorted(similarities, reverse=True)
        assert 0 <= result.share(similarities[-1]) <= result.share(similarities[0]) == 1
        assert {name for name, _ in result.nearest} <= {name for name, _ in CONCEPTS}
        assert f"first token {result.first_token_s * 1000:,.0f} ms" in flat
        assert f"{result.tokens_per_s:,.0f} tokens/s" in flat
    assert out.name in text


def test_the_picture_shows_every_card(done):
    _, _, out = done
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert pixels.shape == (1200, 1600, 3)
    for top, n_cards in ((112, 3), (646, 2)):
        for card in np.array_split(pixels[top : top + 500, 44:-44], n_cards, axis=1):
            assert len(np.unique(card.reshape(-1, 3), axis=0)) > 500


def test_a_long_answer_stays_on_its_card(tmp_path):
    shot = SHOTS[0]
    short, long = (
        Result(shot, answer, [("dog", 0.5)]) for answer in ("a dog", "many $words^2 " * 80)
    )
    pictures = []
    for name, result in (("short", short), ("long", long)):
        draw([result], tmp_path / f"{name}.png", "tiny")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"), int))
    changed = np.argwhere(np.abs(pictures[0] - pictures[1]).sum(axis=2))
    assert changed[:, 0].max() < 112 + 521 - 66
    assert changed[:, 1].max() <= 44 + 488 - 22


def test_concepts_come_from_the_models_folder(folder):
    assert concept_names(str(folder)) == [name for name, _ in CONCEPTS]


def test_the_media_are_credited():
    credits_text = (MEDIA_FOLDER / "README.md").read_text(encoding="utf-8")
    for shot in SHOTS:
        for name, _ in shot.parts:
            assert (MEDIA_FOLDER / name).is_file()
    for source in ("Caltech-101", "ESC-10", "CC BY 4.0", "CC0"):
        assert source in credits_text
