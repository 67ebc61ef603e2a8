"""CLIP's tokenizer: reference ids, truncated merges, time on hostile texts."""

import subprocess
import sys
import time

import pytest
import torch
from conftest import stored_entry

from ibllm_tools.preprocess import ClipTokenizer, PreprocessConfig, clip_tokenizer, tokenize


@pytest.mark.golden
@pytest.mark.parametrize("index", range(len(stored_entry("preprocess/text.json", "rows") or [0])))
def test_ids_equal_the_reference(golden, index):
    stored = golden.json("preprocess/text.json")
    row, context = stored["rows"][index], stored["context_length"]
    tokens = tokenize([row["text"]], PreprocessConfig(text_context=context))[0].tolist()
    assert tokens == row["ids"] + [stored["pad"]] * (context - len(row["ids"]))
    assert tokens.index(max(tokens)) == row["eot_index"]


@pytest.mark.golden
def test_start_and_end_equal_the_reference(golden):
    stored = golden.json("preprocess/text.json")
    assert (clip_tokenizer().start, clip_tokenizer().end) == (stored["start"], stored["end"])


def test_a_long_text_keeps_its_end_token():
    tokens = tokenize(["one two three four five six seven eight"], PreprocessConfig(text_context=5))
    assert tokens.shape == (1, 5)
    assert tokens[0, -1] == clip_tokenizer().end


def test_special_tokens_in_a_text_can_be_read_as_plain_characters():
    text = "a <|endoftext|> b <|STARTOFTEXT|>"
    plain = PreprocessConfig(text_special_tokens=False)
    end, start = clip_tokenizer().end, clip_tokenizer().start
    as_reference, as_characters = (tokenize([text], c)[0] for c in (PreprocessConfig(), plain))
    assert (as_reference == end).sum() == 2
    assert (as_characters == end).sum() == 1
    assert (as_characters == start).sum() == 1


@pytest.mark.parametrize("n_merges", [0, 1, 500, 7678, 48894])
def test_truncated_merges_make_a_smaller_vocabulary(n_merges):
    tokenizer = ClipTokenizer(n_merges)
    assert tokenizer.vocab_size == 512 + n_merges + 2
    assert (tokenizer.start, tokenizer.end) == (512 + n_merges, 513 + n_merges)
    ids = tokenizer.encode("A photo of a dog, 犬の写真!")
    assert max(ids) < tokenizer.start


def test_frequent_ids_stay_when_merges_are_truncated():
    """A word whose merges are among the first N has the same ids as in the full table."""
    text = "the photo of a dog"
    assert ClipTokenizer(20000).encode(text) == clip_tokenizer().encode(text)
    assert len(ClipTokenizer(10).encode(text)) > len(clip_tokenizer().encode(text))


def test_texts_do_not_depend_on_their_neighbours():
    texts = ["a dog", "", "naïve café", "a dog"]
    together = tokenize(texts, PreprocessConfig())
    assert together.dtype == torch.int64
    for text, row in zip(texts, together, strict=True):
        assert torch.equal(tokenize([text], PreprocessConfig())[0], row)


@pytest.mark.parametrize(
    "text", ["x" * 300_000, "日本語" * 50_000, "ab c" * 50_000, "&amp;" * 20_000]
)
def test_hostile_texts_take_seconds_at_most(text):
    started = time.process_time()
    assert tokenize([text], PreprocessConfig()).shape == (1, 77)
    assert time.process_time() - started < 5


def test_the_table_loads_within_a_tenth_of_a_second():
    code = (
        "import time, ibllm_tools.preprocess.text as text;"
        "started = time.process_time(); text.ClipTokenizer();"
        "print(time.process_time() - started)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(2)
    ]
    assert min(times) < 0.1
