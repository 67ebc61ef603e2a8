"""From logits to text: choosing tokens, whole characters, stop texts."""

import pytest
import torch
from tiny_model import byte_tokenizer

from ibllm_tools.decoding import AnswerText, Sampler, Sampling, StopText, TokenText
from ibllm_tools.errors import ConfigurationError


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.mark.parametrize("text", ["plain", "狗 in the 海", "é🐕‍🦺!", "a\ufffdb"])
def test_characters_come_whole_and_none_is_lost(tokenizer, text):
    stream = TokenText(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    assert "".join(pieces) + stream.flush() == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


def test_a_broken_character_at_the_end_comes_out_by_flush(tokenizer):
    stream = TokenText(tokenizer)
    tokens = tokenizer.encode("ab狗", add_special_tokens=False)[:-1]
    assert "".join(stream.push(token) for token in tokens) == "ab"
    assert stream.flush() == "\ufffd"


def test_special_tokens_give_no_text(tokenizer):
    stream = TokenText(tokenizer)
    assert stream.push(tokenizer.convert_tokens_to_ids("<|user|>")) + stream.flush() == ""


@pytest.mark.parametrize(
    ("pieces", "stop", "shown"),
    [
        (["hello ", "wor", "ld"], ["world"], "hello "),
        (["hello ", "wor", "d"], ["world"], "hello word"),
        (["a", "a", "b"], ["aab"], ""),
        (["xaa", "ab"], ["aab"], "xa"),
        (["one two"], ["two", "ne"], "o"),
        (["one"], [""], "one"),
        (["one"], [], "one"),
    ],
)
def test_a_text_ends_before_the_first_stop(pieces, stop, shown):
    stops = StopText(stop)
    seen = ""
    for piece in pieces:
        seen += stops.push(piece)
        assert shown.startswith(seen)
        if stops.found:
            break
    assert (seen if stops.found else seen + stops.flush()) == shown


def test_a_stop_text_inside_of_a_held_back_character_ends_too(tokenizer):
    answer = AnswerText(tokenizer, ["\ufffd"])
    shown = "".join(answer.push(t) for t in tokenizer.encode("ab狗", add_special_tokens=False)[:-1])
    assert shown + answer.finish() == "ab"
    assert answer.stopped


LOGITS = torch.log(torch.tensor([0.1, 0.5, 0.25, 0.15]))


def drawn(**options):
    sampler = Sampler(Sampling(**options))
    return [sampler.choose(LOGITS) for _ in range(400)]


def test_zero_temperature_takes_the_likeliest():
    assert set(drawn()) == {1}


def test_sampling_follows_the_probabilities():
    tokens = drawn(temperature=1.0, seed=0)
    shares = [tokens.count(i) / 400 for i in range(4)]
    assert shares == pytest.approx([0.1, 0.5, 0.25, 0.15], abs=0.06)
    assert tokens == drawn(temperature=1.0, seed=0) != drawn(temperature=1.0, seed=1)


def test_top_k_and_top_p_cut_the_unlikely():
    assert set(drawn(temperature=1.0, top_k=2, seed=0)) == {1, 2}
    assert set(drawn(temperature=1.0, top_p=0.6, seed=0)) == {1, 2}
    assert set(drawn(temperature=1.0, top_k=99, seed=0)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": -1},
        {"max_tokens": 0},
        {"timeout_s": 0.0},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=f"{next(iter(options)).removesuffix('_s')} is"):
        Sampling(**options)
