"""`ChatImageBindLLM` on a tiny random model: its settings, media, and how it answers."""

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from chat_samples import ask, cloud, picture, sound
from engine_gates import Gate, time_over
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pydantic import ValidationError
from tiny_model import CONTEXT, save_tiny_model

from ibllm_tools import ChatImageBindLLM, ConfigurationError, Media, MediaError, MediaPolicy
from ibllm_tools.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def chat(folder):
    return ChatImageBindLLM(model=folder, max_tokens=12)


@pytest.mark.parametrize("medium", [picture(), sound(), cloud()], ids=["image", "audio", "point"])
def test_an_answer_depends_on_its_medium(chat, medium):
    bare = chat.invoke("what is it?")
    sensed = chat.invoke(ask("what is it?", medium))
    assert len(bare.text) == len(sensed.text) == 12
    assert bare.text != sensed.text


def test_streamed_chunks_add_up_to_the_answer(chat):
    message = ask("what is it?", picture())
    chunks = list(chat.stream(message))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    answer = chat.invoke(message)
    assert len(chunks) > 5
    assert whole.text == answer.text
    assert whole.usage_metadata == answer.usage_metadata
    assert whole.response_metadata == answer.response_metadata


def test_usage_counts_text_and_media_apart(chat):
    bare = chat.invoke("what is it?").usage_metadata
    sensed = chat.invoke(ask("what is it?", picture(), picture(1), sound())).usage_metadata
    assert bare["input_tokens"] == sensed["input_tokens"] > len("what is it?")
    assert sensed["output_tokens"] == 12
    assert sensed["total_tokens"] == sensed["input_tokens"] + 12
    assert sensed["input_token_details"] == {"image": 2, "audio": 1}
    assert "input_token_details" not in bare


def test_metadata_names_the_model_and_how_the_answer_ended(chat, folder):
    metadata = chat.invoke("hi").response_metadata
    expected = {"model_name": str(folder), "model_provider": "imagebind", "finish_reason": "length"}
    assert metadata == expected


def test_a_stop_text_ends_the_answer_before_it(chat):
    answer = chat.invoke("hi").text
    stop = answer[4:7]
    stopped = chat.invoke("hi", stop=[stop])
    assert stopped.text == answer[: answer.index(stop)]
    assert stopped.response_metadata["finish_reason"] == "stop"
    streamed = "".join(chunk.text for chunk in chat.stream("hi", stop=[stop]))
    assert streamed == stopped.text


def test_stop_may_be_set_once_and_replaced_per_call(folder, chat):
    answer = chat.invoke("hi").text
    strict = ChatImageBindLLM(model=folder, max_tokens=12, stop_sequences=[answer[2]])
    assert strict.stop == [answer[2]]
    assert strict.invoke("hi").text == answer[: answer.index(answer[2])]
    assert strict.invoke("hi", stop=["~"]).text == answer


def test_one_seed_gives_one_answer(chat):
    def sample(seed):
        return chat.invoke("hi", temperature=5.0, seed=seed).text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1
    assert chat.invoke("hi", temperature=5.0, top_k=1).text == chat.invoke("hi").text
    assert chat.invoke("hi", temperature=5.0, top_p=1e-6).text == chat.invoke("hi").text


def test_weights_of_a_mixture_count(chat):
    def mixed(weight):
        return chat.invoke(ask("and?", picture(weight=weight), sound()), visual_cache=False).text

    alone = chat.invoke(ask("and?", sound()), visual_cache=False).text
    assert mixed(1e-6) == alone
    assert mixed(1e6) != alone


def test_a_sensed_text_is_not_read(chat):
    sensed = chat.invoke(ask("hi", Media.from_text("a dog")))
    assert sensed.usage_metadata["input_tokens"] == chat.invoke("hi").usage_metadata["input_tokens"]
    assert sensed.text != chat.invoke("hi").text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": "%%%", "mime_type": "image/png"},
        {"type": "image", "base64": base64.b64encode(b"no").decode(), "mime_type": "image/png"},
        {"type": "hologram", "base64": "AAAA"},
        {"type": "image", "url": "https://example.com/dog.jpg"},
        {"type": "image", "url": "/etc/passwd"},
        {"type": "file", "base64": "JVBERi0xLjQK", "mime_type": "application/pdf"},
        {**picture(), "extras": {"weight": 0}},
    ],
    ids=["base64", "truncated", "unknown", "host", "path", "pdf", "weight"],
)
def test_a_bad_medium_is_an_error_and_breaks_nothing(chat, block):
    before = chat.invoke(ask("what is it?", picture())).text
    with pytest.raises(MediaError):
        chat.invoke(ask("what is it?", block))
    with pytest.raises(MediaError):
        list(chat.stream(ask("what is it?", block)))
    assert chat.invoke(ask("what is it?", picture())).text == before


def test_a_listed_folder_may_be_named_in_a_message(folder, tmp_path):
    path = tmp_path / "dog.png"
    path.write_bytes(base64.b64decode(picture()["base64"]))
    block = {"type": "image", "url": path.as_uri()}
    policy = MediaPolicy(allowed_dirs=(tmp_path,))
    chat = ChatImageBindLLM(model=folder, max_tokens=12, media_policy=policy)
    assert chat.invoke(ask("hm", block)).text == chat.invoke(ask("hm", picture())).text


def test_blocks_of_other_models_answers_are_passed_over(chat):
    history = [
        HumanMessage("hi"),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "yes"}]),
        HumanMessage("and?"),
    ]
    plain = [HumanMessage("hi"), AIMessage("yes"), HumanMessage("and?")]
    assert chat.invoke(history).text == chat.invoke(plain).text


def test_roles_in_a_row_become_one_turn(chat):
    apart = [SystemMessage("be"), SystemMessage("brief"), HumanMessage("a"), HumanMessage("b")]
    joined = [SystemMessage("be\nbrief"), HumanMessage("a\nb")]
    assert chat.invoke(apart).text == chat.invoke(joined).text


def test_threads_get_what_they_get_alone(chat):
    media = [picture(0), picture(1), sound(0), sound(1), cloud(0), cloud(1)]
    prompts = [ask(f"question {i}", medium) for i, medium in enumerate(media)]
    alone = [chat.invoke(prompt).text for prompt in prompts]
    assert len(set(alone)) == len(alone)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda prompt: chat.invoke(prompt).text, prompts * 3))
    assert together == alone * 3
    assert [answer.text for answer in chat.batch(prompts)] == alone


def test_a_consumer_that_stops_ends_the_work(folder):
    chat = ChatImageBindLLM(model=folder, max_tokens=CONTEXT - 100)
    with Gate(chat._engine(chat.model), held_from=8) as gate:
        stream = chat.stream("hi")
        for _ in range(3):
            next(stream)
        stream.close()
        gate.open()
        chat.invoke("hi", max_tokens=2)
        assert gate.steps < 20


def test_a_timeout_keeps_what_was_said(folder, monkeypatch):
    chat = ChatImageBindLLM(model=folder, max_tokens=400, timeout=1000)
    with time_over(chat._engine(chat.model), monkeypatch, after=9):
        answer = chat.invoke("hi")
    assert answer.response_metadata["finish_reason"] == "timeout"
    assert 0 < answer.usage_metadata["output_tokens"] < 20


def test_the_context_bounds_the_answer(folder):
    chat = ChatImageBindLLM(model=folder, max_tokens=10_000)
    usage = chat.invoke("x" * (CONTEXT - 50)).usage_metadata
    assert usage["total_tokens"] == CONTEXT
    with pytest.raises(ConfigurationError, match=f"holds {CONTEXT}"):
        chat.invoke("x" * CONTEXT)


def test_greedy_answers_equal_those_of_generate(chat):
    engine = chat._engine(chat.model)
    inputs = engine.processor("what is it?", media=[picture()])
    tokens = engine.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    text = engine.processor.decode(tokens[0, inputs["input_ids"].shape[1] :])
    assert chat.invoke(ask("what is it?", picture())).text == text


def test_the_visual_cache_is_switched_and_set(folder):
    def answer(setting):
        chat = ChatImageBindLLM(model=folder, max_tokens=12, visual_cache=setting)
        return chat.invoke(ask("hi", sound())).text

    assert answer({"weight": 0.0}) == answer(False)
    assert answer({"k": 1, "weight": 1.0}) != answer(False)
    with pytest.raises(ConfigurationError, match="visual_cache"):
        answer({"alpha": 1})


def test_construction_reads_no_weights(tmp_path):
    missing = ChatImageBindLLM(model=tmp_path)
    with pytest.raises(CheckpointError, match="config"):
        missing.invoke("hi")
    with pytest.raises(CheckpointError, match="no folder here and no hub id"):
        ChatImageBindLLM(model="nowhere").invoke("hi")


def test_one_model_is_loaded_for_all(folder, chat):
    other = ChatImageBindLLM(model=str(folder), temperature=1.0)
    assert other._engine(other.model) is chat._engine(chat.model)
    exact = ChatImageBindLLM(model=folder, dtype="float64")
    assert exact._engine(exact.model) is not chat._engine(chat.model)


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"max_tokens": 0}, {"top_p": 0}, {"temprature": 1}, {"timeout": 0}],
    ids=str,
)
def test_wrong_settings_are_refused_at_once(options):
    with pytest.raises(ValidationError):
        ChatImageBindLLM(**options)


@pytest.mark.parametrize("options", [{"device": "warp:9"}, {"dtype": "int8"}], ids=str)
def test_an_impossible_placement_is_an_error(folder, options):
    with pytest.raises(ConfigurationError, match="expected"):
        ChatImageBindLLM(model=folder, **options).invoke("hi")


def test_unknown_call_settings_are_refused(chat):
    with pytest.raises(ConfigurationError, match=r"warp.*may set.*tools"):
        chat.invoke("hi", warp=9)


def test_a_call_may_name_another_model(chat, tmp_path):
    other = str(save_tiny_model(tmp_path, seed=7))
    answer = chat.invoke("hi", model=other)
    assert answer.response_metadata["model_name"] == other
    assert answer.text == ChatImageBindLLM(model=other, max_tokens=12).invoke("hi").text
    assert answer.text != chat.invoke("hi").text


def test_langchains_cache_tells_settings_apart(folder):
    cache = InMemoryCache()

    def answer(**options):
        chat = ChatImageBindLLM(model=folder, cache=cache, **{"max_tokens": 12, **options})
        return chat.invoke(ask("hi", sound())).text

    first = answer()
    assert answer(max_tokens=5) == first[:5]
    assert answer(visual_cache={"k": 1, "weight": 1.0}) != first
    assert answer(temperature=5.0, seed=1) != answer(temperature=5.0, seed=2)
    assert answer() == first


def test_every_setting_of_an_answer_is_part_of_the_cache_key(folder):
    """A field that the key leaves out would give one setting's answer to another."""
    chat = ChatImageBindLLM(model=folder)
    base = set(BaseChatModel.model_fields) | {"streaming", "max_retries", "api_key"}
    own = set(ChatImageBindLLM.model_fields) - base
    assert own == set(chat._identifying_params) - {"checkpoint"}
    plain = chat._get_llm_string()
    assert plain == ChatImageBindLLM(model=folder)._get_llm_string()
    assert plain != chat._get_llm_string(tools=[{"type": "function"}])


def test_tokens_are_counted_by_the_models_own_tokenizer(chat):
    assert len(chat.get_token_ids("abc狗")) == 6
    assert chat.get_num_tokens("abc") == 3
    bare, sensed = [HumanMessage("hi")], ask("hi", picture())
    n_tokens = chat.get_num_tokens_from_messages(bare)
    assert n_tokens == chat.get_num_tokens_from_messages(sensed)
    assert n_tokens == chat.invoke("hi").usage_metadata["input_tokens"]


def test_the_profile_tells_what_the_model_takes(folder):
    profile = ChatImageBindLLM().profile
    abilities = (
        "text_inputs", "image_inputs", "audio_inputs", "video_inputs", "image_tool_message",
        "tool_calling", "tool_choice", "tool_call_streaming", "structured_output", "temperature",
        "open_weights",
    )  # fmt: skip
    assert [name for name in abilities if profile[name] is not True] == []
    refused = ("pdf_inputs", "pdf_tool_message", "image_url_inputs", "image_outputs")
    assert [name for name in refused if profile[name] is not False] == []
    assert ChatImageBindLLM(model=folder).profile["max_input_tokens"] == CONTEXT
    allowed = MediaPolicy(allowed_hosts=("example.com",))
    assert ChatImageBindLLM(media_policy=allowed).profile["image_url_inputs"] is True
    assert ChatImageBindLLM(model="some/hub-id").profile["tool_calling"] is True


def test_the_environment_may_name_the_model(folder, monkeypatch):
    monkeypatch.setenv("IBLLM_MODEL", str(folder))
    assert ChatImageBindLLM().model == str(folder)
    assert ChatImageBindLLM(model="pocket").model == "pocket"


def test_traces_carry_the_settings(folder):
    chat = ChatImageBindLLM(model=folder, temperature=0.5, max_tokens=7, stop=["x"])
    params = chat._get_ls_params()
    assert params["ls_provider"] == "imagebind"
    assert params["ls_temperature"] == 0.5
    assert params["ls_max_tokens"] == 7
    assert params["ls_stop"] == ["x"]
