"""What a model writes for itself before it answers is no part of the answer."""

import pytest
from engine_models import answer, tiny_engine, user
from test_engine_trouble import Allowing
from tiny_model import byte_tokenizer

from ibllm_tools.decoding import (
    AnswerText,
    ReasoningMarkup,
    ReasoningText,
    Sampling,
    split_reasoning,
)

NOTE = ReasoningMarkup("<|note|>", "<|note|>")
THINK = ReasoningMarkup("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "markup", "reasoning", "answer"),
    [
        ("<|note|>a dog, a ball<|note|>A dog plays.", NOTE, "a dog, a ball", "A dog plays."),
        ("<think>\nIt barks.\n</think>\n\nA dog.", THINK, "It barks.", "A dog."),
        ("\n<think>x</think>y", THINK, "x", "y"),
        ("<think>\n\n</think>\n\nA dog.", THINK, "", "A dog."),
        ("<think>for ever\n", THINK, "for ever", ""),
        ("No reasoning.", THINK, "", "No reasoning."),
        (" A <think>tag</think> later.", THINK, "", " A <think>tag</think> later."),
        ("<thin air>", THINK, "", "<thin air>"),
        ("<thi", THINK, "", "<thi"),
        ("<think>a </think x</think> b", THINK, "a </think x", "b"),
        ("", NOTE, "", ""),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_a_text_is_divided_however_it_comes(text, markup, reasoning, answer, step):
    parts = ReasoningText(markup)
    pairs = [parts.push(text[i : i + step]) for i in range(0, len(text), step)] + [parts.finish()]
    assert "".join(pair[0] for pair in pairs) == reasoning
    assert "".join(pair[1] for pair in pairs) == answer
    assert split_reasoning(text, markup) == (reasoning, answer)


def test_without_markup_everything_is_the_answer():
    assert split_reasoning("<think>a</think>b", None) == ("", "<think>a</think>b")


def test_reasoning_that_the_prompt_has_opened():
    parts = ReasoningText(THINK, opened=True)
    assert parts.push("It barks.\n</think>\n\nA dog.") == ("It barks.", "A dog.")


def with_tokens(*tokens, special):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    return tokenizer


def test_the_markup_is_found_by_tokens_or_template():
    assert ReasoningMarkup.of(byte_tokenizer()) is None
    assert ReasoningMarkup.of(with_tokens("<|note|>", special=True)) == NOTE
    assert ReasoningMarkup.of(with_tokens("<think>", "</think>", special=False)) == THINK
    tokenizer = byte_tokenizer()
    tokenizer.chat_template += "{# <think>...</think> #}"
    assert ReasoningMarkup.of(tokenizer) == THINK


def pushed(tokenizer, markup, text, stop=()):
    answer = AnswerText(tokenizer, stop, reasoning=markup)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    shown = "".join(answer.push(token) for token in tokens if not answer.stopped)
    return shown + answer.finish(), answer


def test_special_markup_is_seen_and_counted_and_stops_look_at_the_answer_alone():
    tokenizer = with_tokens("<|note|>", special=True)
    text, parts = pushed(tokenizer, NOTE, "<|note|>狗, ball<|note|>A dog. A ball.", ["ball"])
    assert text == "A dog. A "
    assert parts.take_reasoning() == "狗, ball"
    assert parts.take_reasoning() == ""
    assert parts.n_reasoning_tokens == 2 + len("狗, ball".encode())
    text, _ = pushed(tokenizer, NOTE, "<|note|>x<|note|>A<|note|>B<|user|>")
    assert text == "AB"
    text, parts = pushed(tokenizer, NOTE, "A dog.")
    assert (text, parts.n_reasoning_tokens, parts.take_reasoning()) == ("A dog.", 0, "")


def test_markup_of_several_tokens_is_counted_whole():
    text, parts = pushed(byte_tokenizer(), THINK, "<think>ab</think>\ncd")
    assert (text, parts.take_reasoning()) == ("cd", "ab")
    assert parts.n_reasoning_tokens == len("<think>ab</think>")


@pytest.fixture(scope="module")
def engine():
    made = tiny_engine()
    made.reasoning = THINK
    yield made
    made.close()


def said(engine, text):
    tokens = engine.tokenizer.encode(text, add_special_tokens=False)
    return Allowing(*tokens, ends=True)


@pytest.mark.parametrize("whole", [False, True])
def test_the_engine_gives_reasoning_apart(engine, whole):
    script = said(engine, "<think>ab</think>cd")
    sampling = Sampling(logprobs=0)
    pieces = list(engine.stream(user("x"), sampling=sampling, constraint=script, whole=whole))
    assert "".join(piece.reasoning for piece in pieces) == "ab"
    assert "".join(piece.text for piece in pieces) == "cd"
    finish = pieces[-1].finish
    assert (finish.n_output_tokens, finish.n_reasoning_tokens) == (19, 17)
    assert pieces[-1].n_reasoning_tokens == 17
    tokens = [entry.token for piece in pieces for entry in piece.logprobs]
    assert tokens == ["c", "d"]
    if not whole:
        assert [p.reasoning for p in pieces if p.reasoning] == ["a", "b"]


def test_reasoning_and_answer_share_the_tokens(engine):
    script = said(engine, "<think>ab</think>cd")
    sampling = Sampling(max_tokens=8)
    (piece,) = engine.stream(user("x"), sampling=sampling, constraint=script, whole=True)
    assert (piece.reasoning, piece.text, piece.finish.reason) == ("a", "", "length")


def test_a_prompt_may_open_the_reasoning():
    engine = tiny_engine()
    engine.tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    engine.reasoning = THINK
    (piece,) = engine.stream(user("x"), sampling=Sampling(max_tokens=5), whole=True)
    assert piece.text == ""
    assert len(piece.reasoning) > 2
    assert piece.finish.n_reasoning_tokens == 5
    n_before = len(engine.prompt_ids(user("x")))
    text, finish = answer(engine, user("x"), constraint=said(engine, "ab"))
    assert text == "ab"
    assert finish.n_input_tokens == n_before + len("</think>\n\n")
    engine.close()
