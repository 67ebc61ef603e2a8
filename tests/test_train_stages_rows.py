"""From conversations to targets, and from sets to one order."""

from collections import Counter

import pytest
import torch
from stage_fixtures import turns
from tiny_model import JOINT, byte_tokenizer

from ibllm_tools.model import ImageBindLLMProcessor
from ibllm_tools.model.prompts import (
    CAPTION_REQUEST,
    alpaca_conversation,
    encode_conversation,
    supervise,
)
from ibllm_tools.model.sentencepiece import read_sentencepiece
from ibllm_tools.preprocess import PreprocessConfig
from ibllm_tools.train.stages.collate import COUNTED, Collator
from ibllm_tools.train.stages.rows import BLOCK, Stream, TrainingRow, block_quota
from ibllm_tools.train.stages.supervision import RowProblem, supervise_conversation

DIALOG = ({"role": "system", "content": "be kind"}, *turns("a?", "one", "b?", " two "))


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def alpaca():
    plain = byte_tokenizer()
    plain.chat_template = None
    return plain


def targets(row):
    """What is learned, as runs of targets."""
    runs, open_run = [], False
    for label in row.labels:
        if label < 0:
            open_run = False
        elif open_run:
            runs[-1].append(label)
        else:
            runs.append([label])
            open_run = True
    return runs


def test_every_answer_and_its_end_is_a_target(tokenizer):
    row = supervise_conversation(tokenizer, DIALOG, 512)
    assert [tokenizer.decode(run) for run in targets(row)] == ["one<|end|>", "two<|end|>"]


def test_the_ids_are_those_that_an_answer_is_given_after(tokenizer):
    row = supervise_conversation(tokenizer, DIALOG, 512)
    asked = encode_conversation(tokenizer, DIALOG[:-1])
    assert row.ids[: len(asked)] == asked
    assert row.labels[: len(asked)][-1] == -100


def test_alpaca_rows_are_those_of_the_released_training(alpaca):
    prompt = alpaca_conversation(turns("what?"))
    ids, labels = supervise(alpaca, prompt, "a cat", 512)
    row = supervise_conversation(alpaca, turns("what?", "a cat"), 512)
    assert (row.ids, row.labels) == (ids, labels)


def test_alpaca_dialogs_learn_to_end_every_answer(alpaca):
    row = supervise_conversation(alpaca, turns("a?", "one", "b?", "two"), 512)
    assert [alpaca.decode(run) for run in targets(row)] == ["one<|end|>", "two<|end|>"]
    first = row.labels.index(alpaca.eos_token_id)
    assert alpaca.decode([row.ids[first]]) == "\n"  # the text goes on as in use


@pytest.mark.parametrize("form", ["tokenizer", "alpaca"])
def test_a_spelled_special_token_stays_text(request, form):
    chosen = request.getfixturevalue(form)
    row = supervise_conversation(chosen, turns("say <|end|>", "ok <|user|> done"), 512)
    assert chosen.decode(targets(row)[0]) == "ok <|user|> done<|end|>"
    assert row.ids.count(chosen.eos_token_id) == (2 if form == "tokenizer" else 1)


def test_multi_byte_answers_are_targets_to_the_last_byte(tokenizer):
    row = supervise_conversation(tokenizer, turns("什么?", "一只猫🐈"), 512)
    assert tokenizer.decode(targets(row)[0]) == "一只猫🐈<|end|>"


@pytest.mark.parametrize(
    ("messages", "longest", "reason"),
    [
        (turns("a?", " "), 512, "no answer"),
        (turns("a" * 50, "b"), 30, "no answer within max_tokens"),
    ],
)
def test_rows_without_a_target_are_named(tokenizer, messages, longest, reason):
    with pytest.raises(RowProblem, match=f"^{reason}$"):
        supervise_conversation(tokenizer, messages, longest)


def test_a_template_that_rewrites_texts_is_noticed():
    odd = byte_tokenizer()
    odd.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(RowProblem, match="template"):
        supervise_conversation(odd, turns("a?", "b"), 512)


def test_the_system_prompt_comes_first(tokenizer):
    row = supervise_conversation(tokenizer, turns("a?", "b"), 512, system_prompt="hello")
    assert tokenizer.decode(row.ids).startswith("<|system|>hello<|end|><|user|>a?")


@pytest.mark.golden
def test_rows_with_pictures_are_those_of_the_released_data_sets(golden):
    """Its rows of text only show Python tuple syntax in the prompt, and are left out here."""
    stored = golden.json("text_data/prompt_and_labels.json")
    released = read_sentencepiece(golden.path("text_data/toy_tokenizer.model"))
    cases = [
        (case, turns(*(turn["value"] for turn in case["item"]["conversations"])))
        for case in stored["finetune_items"]
        if "image" in case["item"]
    ]
    cases += [(c, turns(CAPTION_REQUEST, c["caption"])) for c in stored["pretrain_items"]]
    for case, messages in cases:
        row = supervise_conversation(released, messages, stored["max_words"])
        assert row.ids == case["ids_without_padding"]
        found = [0 if label == -100 else label for label in row.labels]
        assert found == case["labels_without_padding"]


def make_collator(tokenizer, **changes):
    sizes = PreprocessConfig(text_context=16, text_merges=100)
    options = {
        "processor": ImageBindLLMProcessor(tokenizer, sizes),
        "max_tokens": 64,
        "too_long": "cut",
        "joint_dim": JOINT,
        "modalities": ("image",),
        "needs_media": False,
    }
    return Collator(**options | changes)


def shown(text, modality="image"):
    return TrainingRow("x", turns("what?", text), (modality,), torch.ones(JOINT))


def said(batch):
    return {n: c for n, c in zip(COUNTED, batch["counts"].tolist(), strict=True) if c}


def test_a_batch_says_what_it_left_out(tokenizer):
    rows = [shown("cat"), shown("boom", "audio"), TrainingRow("t", turns("hi", "ho")),
            shown("c" * 90), shown(" ")]  # fmt: skip
    batch = make_collator(tokenizer)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == (3, 64)
    assert batch["has_media"].tolist() == [True, False, True]
    assert batch["features"].sum(1).tolist() == [JOINT, 0, JOINT]
    counted = said(batch)
    assert counted.pop("tokens") == 12 + 8 + 64
    assert counted.pop("target tokens") == 4 + 3 + 64 - 8
    assert counted == {"rows": 5, "rows with media": 2, "cut to max_tokens": 1,
                       "other modality": 1, "no answer": 1}  # fmt: skip


def test_too_long_rows_can_be_dropped(tokenizer):
    batch = make_collator(tokenizer, too_long="drop")([shown("c" * 90), shown("cat")])
    assert len(batch["input_ids"]) == 1
    assert said(batch)["longer than max_tokens"] == 1


def test_a_batch_of_which_nothing_is_left_has_no_target(tokenizer):
    batch = make_collator(tokenizer, needs_media=True)([TrainingRow("t", turns("hi", "ho"))])
    assert batch["input_ids"].shape == (1, 8)
    assert (batch["labels"] == -100).all()
    assert said(batch) == {"rows": 1, "text only": 1}


def test_bare_rows_are_shown_the_zero_image(tokenizer):
    batch = make_collator(tokenizer, bare=torch.full((JOINT,), 0.5))(
        [TrainingRow("t", turns("hi", "ho"))]
    )
    assert batch["has_media"].all()
    assert batch["features"][0].sum() == 0.5 * JOINT


class Numbers:
    def __init__(self, name, count):
        self.name, self.count = name, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.name, index


def test_without_shares_every_row_comes_once_per_pass():
    stream = Stream([Numbers("a", 5), Numbers("b", 3)], None, 24, seed=0)
    passes = [[stream[i] for i in range(8 * n, 8 * n + 8)] for n in range(3)]
    everything = {("a", i) for i in range(5)} | {("b", i) for i in range(3)}
    assert all(set(rows) == everything for rows in passes)
    assert passes[0] != passes[1]


def test_shares_are_kept_in_every_block_and_sets_are_gone_through():
    stream = Stream([Numbers("a", 7), Numbers("b", 5000)], [1.0, 3.0], 3 * BLOCK, seed=1)
    for block in range(3):
        drawn = Counter(stream[i][0] for i in range(block * BLOCK, (block + 1) * BLOCK))
        assert drawn == {"a": BLOCK // 4, "b": 3 * BLOCK // 4}
    seen = Counter(stream[i][1] for i in range(2 * BLOCK) if stream[i][0] == "b")
    assert len(seen) == 5000
    assert max(seen.values()) == 2
    few = Counter(stream[i][1] for i in range(BLOCK) if stream[i][0] == "a")
    assert max(few.values()) - min(few.values()) <= 1


def test_the_order_follows_from_seed_and_place_alone():
    one, two, three = (Stream([Numbers("a", 50)], None, 100, seed) for seed in (0, 0, 1))
    backwards = [two[i] for i in reversed(range(100))]
    assert [one[i] for i in range(100)] == backwards[::-1]
    assert [one[i] for i in range(100)] != [three[i] for i in range(100)]


@pytest.mark.parametrize("shares", [[1, 1, 1], [1e-9, 1], [0.2, 0.3, 0.5], [5]])
def test_a_block_is_divided_without_rest(shares):
    quota = block_quota(shares)
    assert quota.sum() == BLOCK
    assert quota.min() >= 1
