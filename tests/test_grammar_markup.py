"""Reading answers as they come, and the chat templates that show tools to an LLM."""

import json
import random

import pytest
from grammar_samples import (
    FAMILIES,
    LAMP,
    TOOLS,
    WEATHER,
    WITH_TOOLS,
    WITHOUT_TOOLS,
    family_tokenizer,
    tool,
)
from transformers import PreTrainedTokenizerFast

from ibllm_tools.grammar import (
    CallDelta,
    CallEnd,
    CallMarkup,
    CallStart,
    TextDelta,
    chat_template_with_tools,
)
from ibllm_tools.model.prompts import alpaca_conversation

ALL = ("pocket", *WITH_TOOLS, *WITHOUT_TOOLS)
OPENINGS = {
    "pocket": ('<|call|>{"name": "', '", "arguments": ', '}<|call|>{"name": "', "}"),
    "hermes": (
        '<tool_call>\n{"name": "',
        '", "arguments": ',
        '}\n</tool_call>\n<tool_call>\n{"name": "',
        "}\n</tool_call>",
    ),
    "llama3": ('{"name": "', '", "parameters": ', None, "}"),
    "mistral_args": ("[TOOL_CALLS]", "[ARGS]", "[TOOL_CALLS]", ""),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        "\n```json\n",
        "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
}
OPENINGS["thinking"] = OPENINGS["hermes"]
CALLS = [("get_weather", '{"location": "a\\"}{]世界\\\\", "days": -2}'), ("stop_all", "{}")]


def write(markup, calls, talk=""):
    """An answer in a markup; ids are made up."""
    text = talk + markup.opening
    for index, (name, arguments) in enumerate(calls):
        text += (markup.joint if index else "") + name + markup.middle + arguments
    return (text + markup.closing).replace("\ue000", "Ab3Ab3Ab3")


def joined(events):
    """Text, and name and arguments of each call; checks that events come in order."""
    text, calls, ended = "", [], set()
    for event in events:
        if isinstance(event, TextDelta):
            assert event.text
            text += event.text
        elif isinstance(event, CallStart):
            assert event.index == len(calls) == len(ended)
            calls.append((event.name, ""))
        elif isinstance(event, CallDelta):
            assert event.text
            assert event.index == len(calls) - 1
            assert event.index not in ended
            calls[-1] = (calls[-1][0], calls[-1][1] + event.text)
        else:
            assert isinstance(event, CallEnd)
            assert event.index == len(calls) - 1
            ended.add(event.index)
    assert len(ended) == len(calls)
    return text, calls


def read(markup, pieces):
    parser, events = markup.stream(), []
    for piece in pieces:
        events += parser.feed(piece)
    return [*events, *parser.finish()]


@pytest.mark.parametrize("family", OPENINGS)
def test_the_markup_is_found_in_what_the_template_writes(family):
    markup = CallMarkup.of(family_tokenizer(family))
    assert (markup.opening, markup.middle, markup.joint, markup.closing) == OPENINGS[family]
    assert (markup.item_separator, markup.key_separator) == (", ", ": ")
    assert markup.takes_text == (family == "deepseek")


def test_ids_of_calls_belong_to_the_markup():
    markup = CallMarkup.of(family_tokenizer("mistral"))
    assert markup.has_ids
    assert markup.opening == '[TOOL_CALLS] [{"name": "'
    assert markup.closing == ', "id": "\ue000"}]'
    given = {"id": "call_1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [given]},
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
    ]
    said, result = markup.ready(messages)
    assert said["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9
    assert said["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_arguments_become_what_the_template_takes():
    call = {"id": "x", "function": {"name": "f", "arguments": {"ä": [1]}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    as_text = CallMarkup.of(family_tokenizer("deepseek")).ready([message])
    assert as_text[0]["tool_calls"][0]["function"]["arguments"] == '{"ä": [1]}'
    as_object = CallMarkup.of(family_tokenizer("pocket")).ready(as_text)
    assert as_object[0]["tool_calls"][0]["function"]["arguments"] == {"ä": [1]}
    assert message["tool_calls"][0] is call


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("talk", ["", 'Let me see: {1} <b> "é" 世界 ', " "])
def test_every_split_of_an_answer_gives_the_same_events(family, talk):
    markup = CallMarkup.of(family_tokenizer(family))
    talk = talk.strip() if markup.is_bare and not talk.strip() else talk
    if markup.is_bare and talk:
        pytest.skip("here a call is the whole answer")
    calls = CALLS if markup.joint is not None else CALLS[:1]
    answer = write(markup, calls, talk)
    wanted = (talk.rstrip(), calls)
    assert joined(read(markup, [answer])) == wanted
    assert joined(read(markup, answer)) == wanted
    for cut in range(len(answer) + 1):
        assert joined(read(markup, [answer[:cut], answer[cut:]])) == wanted
    rng = random.Random(0)
    for _ in range(100):
        cuts = sorted(rng.sample(range(len(answer)), min(6, len(answer))))
        pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        assert joined(read(markup, pieces)) == wanted


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("text", [
    "", "Hello.", " Two\n\nlines \n", "<", "<|call", "a < b and <tool> {\"name\": 3} [TOOL",
    "世界 \ufffd 😀", "}{", "[1, 2]", "{\"a\": 1}", "<tool_cal",
])  # fmt: skip
def test_text_without_calls_comes_out_as_it_is(family, text):
    markup = CallMarkup.of(family_tokenizer(family))
    for pieces in ([text], list(text)):
        events = read(markup, pieces)
        assert "".join(event.text for event in events) == text
        assert markup.parse(text) == (text, [])


def test_text_is_handed_out_as_soon_as_it_is_certain():
    parser = CallMarkup.of(family_tokenizer("pocket")).stream()
    assert parser.feed("It is") == [TextDelta("It is")]
    assert parser.feed(" ") == []
    assert parser.feed("fine <") == [TextDelta(" fine")]
    assert parser.feed("|call|") == []
    assert parser.feed('>{"name": "f", "argu') == []
    assert parser.feed('ments": {"x') == [CallStart(0, "f"), CallDelta(0, '{"x')]
    assert parser.feed('": 1}') == [CallDelta(0, '": 1}'), CallEnd(0)]
    assert parser.feed("}") == []
    assert parser.finish() == []


def test_broken_calls_raise_nothing_and_lose_nothing_that_was_text():
    markup = CallMarkup.of(family_tokenizer("hermes"))
    assert markup.parse('Hm <tool_call>\n{"nam') == ('Hm <tool_call>\n{"nam', [])
    told, calls = markup.parse('A<tool_call>\n{"name": "f", "arguments": {"x": ')
    assert told == "A"
    assert calls == [{"name": "f", "arguments": '{"x": '}]
    told, calls = markup.parse('<tool_call>\n{"name": "f", "arguments": {x}} and more')
    assert calls == [{"name": "f", "arguments": "{x}"}]
    assert "and more" in told


@pytest.mark.parametrize("family", ALL)
def test_templates_show_tools_calls_and_results(family):
    tokenizer = family_tokenizer(family)
    template = chat_template_with_tools(tokenizer)
    assert (template == tokenizer.chat_template) == (family not in WITHOUT_TOOLS)
    call = {"id": "abcdefghi", "function": {"name": "get_weather",
            "arguments": {"location": "Oslo"}}}  # fmt: skip
    messages = [
        {"role": "user", "content": "How is it in Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Rainy & cold", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "Thanks."},
    ]
    text = tokenizer.apply_chat_template(
        CallMarkup.of(tokenizer).ready(messages),
        tools=TOOLS,
        chat_template=template,
        add_generation_prompt=True,
        tokenize=False,
    )
    order = ["get_weather", "set_lamp", "How is it in Oslo?", "Oslo", "Rainy & cold", "It rains.",
             "Thanks."]  # fmt: skip
    places = [text.find(part) for part in order]
    assert min(places) >= 0
    assert text.rfind("Thanks.") > text.rfind("It rains.") > text.rfind("Rainy & cold")


@pytest.mark.parametrize("family", WITHOUT_TOOLS)
def test_the_fallback_leaves_conversations_without_tools_alone(family):
    tokenizer = family_tokenizer(family)
    messages = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello {{ x }}."},
        {"role": "user", "content": "Who are you?"},
    ]
    if family != "no_system":
        messages.insert(0, {"role": "system", "content": "Be brief."})
    text = tokenizer.apply_chat_template(
        messages,
        chat_template=chat_template_with_tools(tokenizer),
        add_generation_prompt=True,
        tokenize=False,
    )
    if FAMILIES[family][0] is None:
        assert text == alpaca_conversation(messages)
    else:
        assert text == tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )


def test_the_fallback_joins_results_and_keeps_the_system_prompt():
    tokenizer = family_tokenizer("no_system")
    calls = [
        {"id": str(i), "function": {"name": "get_weather", "arguments": {"location": city}}}
        for i, city in enumerate(("Oslo", "Rome"))
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Oslo and Rome?"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_call_id": "0"},
        {"role": "tool", "content": "sun", "tool_call_id": "1"},
    ]
    text = tokenizer.apply_chat_template(
        messages,
        tools=[WEATHER, LAMP],
        chat_template=chat_template_with_tools(tokenizer),
        add_generation_prompt=True,
        tokenize=False,
    )
    assert text.count("<|im_start|>user") == 2
    assert text.index("Be brief.") < text.index("set_lamp") < text.index("Oslo and Rome?")
    assert "I look.\n<tool_call>\n" in text
    assert "rain\n</tool_response>\n<tool_response>\nsun" in text
    said = text.split("<|im_start|>assistant\n")[1].split("<|im_end|>")[0]
    told, found = CallMarkup.of(tokenizer).parse(said)
    assert told == "I look."
    assert [call["arguments"]["location"] for call in found] == ["Oslo", "Rome"]


def test_the_tool_use_variant_of_a_template_is_taken():
    own = family_tokenizer("hermes")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own.backend_tokenizer, eos_token="<|im_end|>"
    )
    tokenizer.chat_template = {"default": FAMILIES["plain"][0], "tool_use": own.chat_template}
    assert chat_template_with_tools(tokenizer) == own.chat_template
    assert CallMarkup.of(tokenizer) == CallMarkup.of(own)


def test_a_new_template_is_noticed():
    own = family_tokenizer("hermes")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own.backend_tokenizer, eos_token="<|im_end|>"
    )
    tokenizer.chat_template = FAMILIES["plain"][0]
    assert chat_template_with_tools(tokenizer) != FAMILIES["plain"][0]
    tokenizer.chat_template = own.chat_template
    assert chat_template_with_tools(tokenizer) == own.chat_template


TALKING = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}CALL{% endfor %}"
TAGS = (
    "<f={{ c.function.name }}>{% for k, v in c.function.arguments.items() %}<a {{ k }}>{{ v }}"
    "</a>{% endfor %}</f>"
)


@pytest.mark.parametrize("template", [
    TALKING.replace("CALL", TAGS) + "{% endfor %}{{ tools | tojson }}",
    TALKING.replace("CALL", "[{{ c.function.name }}({{ c.function.arguments }})]") + "{% endfor %}",
    "{{ raise_exception('never') if tools }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ messages[0].content }}",
])  # fmt: skip
def test_templates_whose_calls_cannot_be_constrained_get_the_fallback(template):
    own = family_tokenizer("plain")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own.backend_tokenizer, eos_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    if "messages[0]" in template:
        with pytest.raises(ValueError, match="chat template"):
            chat_template_with_tools(tokenizer)
    else:
        assert chat_template_with_tools(tokenizer).endswith(template)


def test_a_tools_description_stands_in_the_prompt_once():
    tokenizer = family_tokenizer("no_template")
    shown = tool("find", {"type": "object", "properties": {"äö": {"type": "string"}}}, "Finds it.")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi."}],
        tools=[shown],
        chat_template=chat_template_with_tools(tokenizer),
        tokenize=False,
    )
    assert text.count("Finds it.") == 1
    line = next(line for line in text.splitlines() if "Finds it." in line)
    assert json.loads(line) == shown["function"]
    assert text.endswith("### Instruction:\nHi.\n\n### Response:")
