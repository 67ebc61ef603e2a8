"""Answers with tool calls under the grammar: pocket's training text, and the markup of others."""

import json
import random
import threading

import jsonschema
import pytest
from grammar_samples import (
    LAMP,
    STOP,
    TOOLS,
    WEATHER,
    WITH_TOOLS,
    WITHOUT_TOOLS,
    family_tokenizer,
    teacher_force,
    text_of,
    tool,
    wanderer,
    write_answer,
)

from ibllm_tools.decoding import ReasoningMarkup
from ibllm_tools.errors import ConfigurationError, SchemaError
from ibllm_tools.grammar import CallMarkup, chat_template_with_tools, compile_calls
from ibllm_tools.train.tokenizer import encode_messages
from ibllm_tools.train.tool_talk import TASKS, test_cases

NOTE = "<|note|>"
ALL = ("pocket", *WITH_TOOLS, *WITHOUT_TOOLS)
PARAMETERS = {t["function"]["name"]: t["function"].get("parameters", {}) for t in TOOLS}


def render(tokenizer, calls, content="", tools=TOOLS):
    """What the template writes of an assistant turn with calls, up to its end token."""
    markup = CallMarkup.of(tokenizer)
    said = [{"id": f"call{i:05d}", "function": {"name": n, "arguments": a}}
            for i, (n, a) in enumerate(calls)]  # fmt: skip
    talk = [{"role": "user", "content": "Hi."}]
    options = {"tools": tools, "chat_template": chat_template_with_tools(tokenizer)}
    prompt = tokenizer.apply_chat_template(
        markup.ready(talk), add_generation_prompt=True, tokenize=False, **options
    )
    answer = {"role": "assistant", "content": content, "tool_calls": said}
    whole = tokenizer.apply_chat_template(markup.ready([*talk, answer]), tokenize=False, **options)
    while not whole.startswith(prompt):
        prompt = prompt[:-1]
    return whole[len(prompt) :].split(tokenizer.eos_token)[0].split("</think>")[-1]


def assert_valid(calls):
    for call in calls:
        assert isinstance(call["arguments"], dict), call
        jsonschema.validate(call["arguments"], PARAMETERS[call["name"]])


@pytest.mark.parametrize("task", TASKS)
def test_pockets_own_training_text_is_what_the_grammar_allows(task):
    tokenizer = family_tokenizer("pocket")
    for case in test_cases(task, 12, 7):
        call = {"function": case.call} if case.call else None
        said = {"role": "assistant", "content": "" if call else 'It is 4 and "fine": {no}.'}
        messages = [*case.messages, {**said, "tool_calls": [call] if call else []}]
        ids, learned = encode_messages(tokenizer, messages, case.tools)
        start = max(i for i, flag in enumerate(learned) if not flag) + 1
        choices = ["auto", "required", case.call["name"]] if case.call else ["auto", "none"]
        for choice in choices:
            grammar = compile_calls(case.tools, tokenizer, choice=choice)
            wrong = teacher_force(grammar, ids[start:])
            assert wrong is None, text_of(tokenizer, ids[start:][: wrong + 1])


def test_pocket_may_call_several_tools_at_once_and_talk_before():
    tokenizer = family_tokenizer("pocket")
    text = render(
        tokenizer,
        [("get_weather", {"location": '巴黎 "x"\n', "days": -3}), ("stop_all", {})],
        "One moment. ",
    )
    ids = tokenizer(text + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    assert teacher_force(compile_calls(TOOLS, tokenizer), ids) is None
    single = compile_calls(TOOLS, tokenizer, parallel=False)
    assert teacher_force(single, ids) is not None


def test_forced_text_has_one_token_path_the_tokenizers_own():
    tokenizer = family_tokenizer("pocket")
    grammar = compile_calls([WEATHER], tokenizer, choice="required")
    prefix = '<|call|>{"name": "get_weather", "arguments": {"location": "'
    ids = tokenizer(prefix, add_special_tokens=False)["input_ids"]
    chosen, _ = write_answer(grammar, 100, max)
    assert chosen[: len(ids)] == ids
    random_walk, _ = write_answer(grammar, 100, wanderer(1, grammar.words))
    assert random_walk[: len(ids)] == ids


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("calls", [
    [("get_weather", {"location": "Paris"})],
    [("get_weather", {"location": "a\"b}</call>\\ 世界", "days": 10})],
    [("set_lamp", {"on": True, "color": "深红", "level": 0.5})],
    [("stop_all", {})],
    [("stop_all", {}), ("get_weather", {"location": ""}), ("stop_all", {})],
], ids=["plain", "hostile text", "enum", "nothing", "three"])  # fmt: skip
def test_what_a_template_writes_is_allowed_and_read_back(family, calls):
    tokenizer = family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    if len(calls) > 1 and markup.joint is None:
        pytest.skip("this template writes one call at a time")
    text = render(tokenizer, calls)
    told, found = markup.parse(text)
    assert [(call["name"], call["arguments"]) for call in found] == calls
    assert not told.strip()
    ids = tokenizer(text.lstrip() + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    for choice in ("auto", "required"):
        wrong = teacher_force(compile_calls(TOOLS, tokenizer, choice=choice), ids)
        assert wrong is None, text_of(tokenizer, ids[: wrong + 1])


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("budget", [40, 64, 90, 200])
def test_required_calls_always_close_and_validate(family, budget):
    tokenizer = family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    grammar = compile_calls(TOOLS, tokenizer, choice="required")
    if grammar.min_tokens > budget:
        pytest.skip("this markup alone is longer")
    for seed in range(12):
        tokens, state = write_answer(
            grammar, budget, wanderer(seed, grammar.words, '"}]', pull=seed / 20)
        )
        assert len(tokens) <= budget
        told, calls = markup.parse(text_of(tokenizer, tokens))
        assert calls
        assert told.strip() == ""
        assert state.finished or len(tokens) == budget
        assert_valid(calls)


@pytest.mark.parametrize("family", ["pocket", "hermes", "mistral", "deepseek"])
def test_no_second_call_is_begun_that_does_not_fit(family):
    tokenizer = family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    long = {"colour": {"type": "string", "maxLength": 8}, "sure": {"type": "boolean"}}
    verdict = tool("give_verdict", {"properties": long, "required": ["colour", "sure"]})
    grammar = compile_calls([STOP, verdict], tokenizer, choice="required")
    for seed in range(30):
        tokens, _ = write_answer(grammar, 75, wanderer(seed, grammar.words))
        assert text_of(tokenizer, tokens).endswith(markup.closing.split("\ue000")[-1])


@pytest.mark.parametrize("family", ALL)
def test_auto_gives_text_or_valid_calls_and_both_occur(family):
    tokenizer = family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    grammar = compile_calls(TOOLS, tokenizer)
    trigger = grammar.words.specials.get(markup.trigger)
    opening = tokenizer(markup.opening, add_special_tokens=False)["input_ids"]
    n_calls = n_texts = 0
    for seed in range(24):
        wander, rng = wanderer(seed, grammar.words, '"}', pull=0.3), random.Random(seed)
        plan = list(opening) if seed % 2 else []
        talk = rng.randrange(6) if trigger is not None or not markup.is_bare else 0
        step = 0

        def choose(allowed, wander=wander, plan=plan, talk=talk):
            nonlocal step
            step += 1
            if step > talk and plan and plan[0] in allowed:
                return plan.pop(0)
            return wander(allowed)

        tokens, _ = write_answer(grammar, 120, choose)
        told, calls = markup.parse(text_of(tokenizer, tokens))
        assert_valid(calls)
        n_calls += bool(calls)
        n_texts += bool(told)
    assert n_calls >= 10
    assert n_texts >= 6


@pytest.mark.parametrize("family", ALL)
def test_a_call_that_no_longer_fits_is_not_begun(family):
    tokenizer = family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    grammar = compile_calls([WEATHER], tokenizer)
    opening = tokenizer(markup.opening, add_special_tokens=False)["input_ids"]
    hello = [] if markup.is_bare else tokenizer("Hi", add_special_tokens=False)["input_ids"]
    plan = hello + opening
    tokens, state = write_answer(grammar, len(plan) + 3, lambda allowed: (
        plan.pop(0) if plan and plan[0] in allowed else allowed[-1]))  # fmt: skip
    _, calls = markup.parse(text_of(tokenizer, tokens))
    assert not calls
    assert state.forced


@pytest.mark.parametrize("family", ALL)
def test_no_choice_means_no_call(family):
    tokenizer = family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    grammar = compile_calls(TOOLS, tokenizer, choice="none")
    opening = tokenizer(markup.opening, add_special_tokens=False)["input_ids"]
    assert teacher_force(grammar, opening) is not None
    text = tokenizer('Well, {"a": 1} is [fine].\n', add_special_tokens=False)["input_ids"]
    assert teacher_force(grammar, [*text, tokenizer.eos_token_id]) is None


def noting_tokenizer():
    """Pocket's tokenizer with the token around what it perceives."""
    own = family_tokenizer("pocket")
    backend = type(own.backend_tokenizer).from_str(own.backend_tokenizer.to_str())
    if own.convert_tokens_to_ids(NOTE) is None:
        backend.add_special_tokens([NOTE])
    noting = type(own)(tokenizer_object=backend, eos_token=own.eos_token)
    noting.chat_template = own.chat_template
    return noting


@pytest.mark.parametrize(("family", "thoughts"), [
    ("noting", f"{NOTE}a dog, \"rain\" 12{NOTE}"),
    ("thinking", "<think>\nThe user wants {this} \"now.\n</think>\n\n"),
])  # fmt: skip
def test_thoughts_may_come_before_text_and_calls_but_not_where_a_call_is_asked_for(
    family, thoughts
):
    tokenizer = noting_tokenizer() if family == "noting" else family_tokenizer(family)
    markup = CallMarkup.of(tokenizer)
    call = render(tokenizer, [("stop_all", {})]).strip()
    auto = compile_calls(TOOLS, tokenizer)
    none = compile_calls(TOOLS, tokenizer, choice="none")
    marks = {tokenizer.convert_tokens_to_ids(mark) for mark in ReasoningMarkup.of(tokenizer)}
    assert marks <= auto.marks
    assert marks <= none.marks

    def fits(grammar, text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return teacher_force(grammar, [*ids, tokenizer.eos_token_id]) is None

    for text in (thoughts + "Hello.", thoughts, thoughts + call, call, "Hello.", ""):
        assert fits(auto, text), text
        assert fits(none, text) == (call not in text), text
    assert not fits(auto, thoughts + thoughts)
    assert not fits(auto, "Hello. " + thoughts)
    assert not fits(auto, thoughts.strip() + markup.opening)
    assert not fits(compile_calls(TOOLS, tokenizer, choice="required"), thoughts + call)
    opening = tokenizer.convert_tokens_to_ids(ReasoningMarkup.of(tokenizer).open)
    for seed in range(10):
        wander = wanderer(seed, auto.words)
        tokens, _ = write_answer(
            auto, 40, lambda allowed, w=wander: opening if opening in allowed else w(allowed)
        )
        assert sum(token in marks for token in tokens) == 2


def test_a_named_tool_is_called_once():
    tokenizer = family_tokenizer("pocket")
    grammar = compile_calls(TOOLS, tokenizer, choice="set_lamp")
    for seed in range(10):
        tokens, _ = write_answer(grammar, 80, wanderer(seed, grammar.words))
        _, calls = CallMarkup.of(tokenizer).parse(text_of(tokenizer, tokens))
        assert [call["name"] for call in calls] == ["set_lamp"]


def test_further_end_tokens_end_an_answer():
    tokenizer = family_tokenizer("hermes")
    other = tokenizer.convert_tokens_to_ids("<|im_start|>")
    text = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    assert teacher_force(compile_calls(TOOLS, tokenizer), [*text, other]) == len(text)
    grammar = compile_calls(TOOLS, tokenizer, end_ids=[other, tokenizer.eos_token_id])
    assert teacher_force(grammar, [*text, other]) is None


def test_thirty_two_tools_are_compiled_once():
    tokenizer = family_tokenizer("pocket")
    tools = [tool(f"tool_{i}", WEATHER["function"]["parameters"]) for i in range(32)]
    grammar = compile_calls(tools, tokenizer, choice="required")
    assert compile_calls(json.loads(json.dumps(tools)), tokenizer, choice="required") is grammar
    assert compile_calls(tools[:31], tokenizer, choice="required") is not grammar
    names = set()
    for seed in range(40):
        tokens, _ = write_answer(grammar, 60, wanderer(seed, grammar.words))
        names |= {c["name"] for c in CallMarkup.of(tokenizer).parse(text_of(tokenizer, tokens))[1]}
    assert len(names) >= 10


def test_threads_share_one_grammar():
    tokenizer = family_tokenizer("hermes")

    def write(seed):
        grammar = compile_calls([*TOOLS, tool("shared")], tokenizer, choice="required")
        return write_answer(grammar, 90, wanderer(seed, grammar.words))[0]

    alone = [write(seed) for seed in range(16)]
    together = [None] * 16

    def work(seed):
        together[seed] = write(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize(("tools", "choice", "words"), [
    ([WEATHER], "other", "'get_weather'"),
    ([], "required", "no tool"),
    ([WEATHER, WEATHER], "auto", "different names"),
    ([tool('a"b')], "auto", "named"),
    ([tool("")], "auto", "named"),
])  # fmt: skip
def test_wrong_tools_are_named(tools, choice, words):
    with pytest.raises(ConfigurationError, match=words):
        compile_calls(tools, family_tokenizer("pocket"), choice=choice)


def test_a_tool_that_takes_no_object_is_named():
    with pytest.raises(SchemaError, match=r"'f'.*'string'"):
        compile_calls([tool("f", {"type": "string"})], family_tokenizer("pocket"))
    bad = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    with pytest.raises(SchemaError, match=r"^f: #/properties/x: .*'uniqueItems'"):
        compile_calls([tool("f", bad)], family_tokenizer("pocket"))


def test_the_error_before_writing_names_the_tokens_needed():
    tokenizer = family_tokenizer("pocket")
    grammar = compile_calls([LAMP, WEATHER], tokenizer, choice="set_lamp")
    with pytest.raises(ConfigurationError, match=rf"takes {grammar.min_tokens} tokens.*only 5 "):
        grammar.begin(5)
    tokens, _ = write_answer(grammar, grammar.min_tokens, wanderer(0, grammar.words))
    assert_valid(CallMarkup.of(tokenizer).parse(text_of(tokenizer, tokens))[1])
    assert compile_calls([STOP], tokenizer).min_tokens == 0
