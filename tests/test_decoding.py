"""From logits to text: choosing tokens, whole characters, stop texts."""

import numpy as np
import pytest
import torch
from tiny_model import byte_tokenizer

from ibllm_tools.decoding import (
    AnswerText,
    Sampler,
    Sampling,
    StopText,
    TokenText,
    choose_tokens,
    logprobs_of,
    spell,
)
from ibllm_tools.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


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
    assert set(drawn(temperature=1.0, top_k=1, top_p=0.9, seed=0)) == {1}


def test_a_nucleus_of_many_tokens_is_cut_where_a_full_sort_cuts_it():
    logits = torch.linspace(0, 1, 1000)[torch.randperm(1000)]
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.5, seed=0))
    least = min(float(logits[sampler.choose(logits)]) for _ in range(2000))
    shares = logits.sort(descending=True).values.softmax(-1)
    cut = int((shares.cumsum(-1) <= 0.5).sum())
    assert cut > 256
    assert least == pytest.approx(float(logits.sort(descending=True).values[cut]), abs=0.01)


def test_rounding_of_the_logits_changes_no_draw():
    logits = torch.randn(300, 2000)
    noise = torch.randn(300, 2000) * 3e-5
    options = Sampling(temperature=1.0, top_p=0.95, seed=3)
    one, other = Sampler(options), Sampler(options)
    assert [one.choose(x) for x in logits] == [other.choose(x) for x in logits + noise]


def test_rows_are_chosen_together_as_alone():
    logits = torch.randn(4, 70)
    kinds = [Sampling(), Sampling(temperature=1.0, seed=1), Sampling(temperature=0.5, top_k=3)]
    kinds = [*kinds[:2], Sampling(temperature=0.5, top_k=3, seed=2), Sampling()]
    alone = [Sampler(kind).choose(row) for kind, row in zip(kinds, logits, strict=True)]
    assert choose_tokens(logits, [Sampler(kind) for kind in kinds]) == alone


def mask_of(*tokens, n_words=2):
    bits = np.zeros(32 * n_words, np.uint8)
    bits[list(tokens)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)


def test_a_mask_of_bits_forbids_what_it_leaves_out_and_does_not_reach():
    logits = torch.zeros(4, 70)
    logits[:, 69], logits[:, 31], logits[:, 40] = 9, 5, 7
    masks = [None, mask_of(31, 40), mask_of(31, 3), mask_of()]
    assert choose_tokens(logits, [Sampler(Sampling())] * 4, masks) == [69, 40, 31, -1]
    sampler = Sampler(Sampling(temperature=2.0, seed=0))
    drawn = {choose_tokens(logits[:1], [sampler], [mask_of(3, 9)])[0] for _ in range(40)}
    assert drawn == {3, 9}


def test_logits_that_are_no_numbers_choose_nothing():
    logits = torch.zeros(2, 5)
    logits[0, 1] = torch.nan
    assert choose_tokens(logits, [Sampler(Sampling())] * 2)[0] == -1


def test_logprobs_name_the_likeliest_tokens(tokenizer):
    logits = torch.full((len(tokenizer),), -30.0)
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    logits[a], logits[b] = 1.0, 2.0
    found = logprobs_of(tokenizer, logits, a, 2)
    assert (found.token, found.bytes, [t.token for t in found.top]) == ("a", b"a", ["b", "a"])
    assert found.logprob == pytest.approx(-1.3133, abs=1e-3)
    assert found.top[0].logprob == pytest.approx(-0.3133, abs=1e-3)
    assert logprobs_of(tokenizer, logits, a, 0).top == ()


def test_the_bytes_of_tokens_make_up_the_text(tokenizer):
    text = "a 狗\n🐕‍🦺é"
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(spell(tokenizer, token)[1] for token in tokens).decode() == text
    assert spell(tokenizer, tokens[2])[0] == "\ufffd"
    assert spell(tokenizer, tokenizer.eos_token_id) == ("<|end|>", b"<|end|>")


def test_special_tokens_that_are_marks_are_shown(tokenizer):
    mark, other = tokenizer.convert_tokens_to_ids(["<|user|>", "<|system|>"])
    answer = AnswerText(tokenizer, marks=frozenset([mark]))
    letters = tokenizer.encode("狗", add_special_tokens=False)
    shown = [answer.push(token) for token in [mark, other, *letters, mark]]
    assert "".join(shown) + answer.finish() == "<|user|>狗<|user|>"


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": -1},
        {"max_tokens": 0},
        {"timeout_s": 0.0},
        {"logprobs": -1},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=f"{next(iter(options)).removesuffix('_s')} is"):
        Sampling(**options)


class TestNoteNames:
    """A note names each thing once."""

    @pytest.fixture(scope="class")
    def tokenizer(self):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained("ibllm_tools/pocket")

    @pytest.mark.parametrize(
        ("said", "forbidden"),
        [
            ("<|note|>dog, ", ["dog"]),
            ("<|note|>dog, sea, ", ["dog", "sea"]),
            ("<|note|>dog", []),
            ("<|note|>dog,", []),
            ("<|note|>dog?cat-, ", []),
            ("<|note|>dog, sea<|note|>Well, ", []),
            ("dog, ", []),
            ("", []),
        ],
    )
    def test_what_a_note_has_is_not_named_again(self, tokenizer, said, forbidden):
        from ibllm_tools.decoding import NoteNames

        names = NoteNames.of(tokenizer)
        state = names.begin(99)
        for token in tokenizer.encode(said):
            assert state.take(token) == token
        mask = state.allowed()
        found = [] if mask is None else [
            i for i in range(len(tokenizer)) if not mask[i // 32] >> (i % 32) & 1
        ]  # fmt: skip
        assert found == sorted(tokenizer.encode(name)[0] for name in forbidden)
        assert not state.finished

    def test_no_tool_is_called_where_none_is_offered(self, tokenizer):
        from ibllm_tools.decoding import NoteNames

        call = tokenizer.convert_tokens_to_ids("<|call|>")
        mask = NoteNames.of(tokenizer, calls=False).begin(99).allowed()
        forbidden = [i for i in range(len(tokenizer)) if not mask[i // 32] >> (i % 32) & 1]
        assert forbidden == [call]
        assert NoteNames.of(tokenizer).begin(99).allowed() is None

    def test_models_without_notes_have_no_such_rule(self):
        from ibllm_tools.decoding import NoteNames

        assert NoteNames.of(byte_tokenizer()) is None
