"""The `openai` package against a running server: what it sends, and what it makes of the replies.

Greedy answers are compared with those of `ChatImageBindLLM`, so that they hold for any weights.
"""

import base64
import json

import httpx
import pytest
from langchain_core.messages import HumanMessage
from serving_server import PATIENCE_S, get, post, serving

from ibllm_tools import ChatImageBindLLM, ImageBindEmbeddings, Media
from ibllm_tools.checkpoints import POCKET_FOLDER

openai = pytest.importorskip("openai", reason="the openai package is the client")

pytestmark = pytest.mark.enable_socket

MEDIA = POCKET_FOLDER.parent / "demo_media"
KEY = "a key of the tests"
QUESTION = [{"role": "user", "content": "What is this?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_forecast",
        "description": "Tells how the weather will be.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def address():
    with serving(api_keys=["another", KEY]) as found:
        yield found


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def ask(client):
    def asked(messages=QUESTION, **options):
        options = {"temperature": 0, "max_tokens": 24, "model": "pocket", **options}
        return client.chat.completions.create(messages=messages, **options)

    return asked


def data_url(name, mime):
    return f"data:{mime};base64,{base64.b64encode((MEDIA / name).read_bytes()).decode()}"


def photo(name="dog.jpg", **more):
    return {"type": "image_url", "image_url": {"url": data_url(name, "image/jpeg")}, **more}


def about(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


def own_answer(*media, **options):
    chat = ChatImageBindLLM(max_tokens=24, **options)
    return chat.invoke([HumanMessage(["What is this?", *media])]).text


def test_a_completion_has_every_field_of_the_wire(address):
    body = {"model": "pocket", "messages": QUESTION, "temperature": 0, "max_tokens": 24}
    headers = {"Authorization": f"Bearer {KEY}"}
    reply = post(f"{address}/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"].startswith("req_")
    found = reply.json()
    assert found["id"].startswith("chatcmpl-")
    assert found["object"] == "chat.completion"
    assert isinstance(found["created"], int)
    assert found["model"] == "pocket"
    assert found["system_fingerprint"].startswith("fp_")
    [choice] = found["choices"]
    message = choice.pop("message")
    assert choice.pop("finish_reason") in {"stop", "length"}
    assert choice == {"index": 0, "logprobs": None}
    assert message.pop("content") == own_answer()
    message.pop("reasoning_content", None)
    assert message == {"role": "assistant", "refusal": None, "annotations": []}
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}
    assert usage["completion_tokens_details"]["audio_tokens"] == 0


@pytest.mark.parametrize(
    ("part", "name", "modality"),
    [
        (photo(), "dog.jpg", "image"),
        ({"type": "image_url", "image_url": data_url("dog.jpg", "image/jpeg")}, "dog.jpg", "image"),
        (
            {
                "type": "input_audio",
                "input_audio": {
                    "data": base64.b64encode((MEDIA / "sea.ogg").read_bytes()).decode(),
                    "format": "ogg",
                },
            },
            "sea.ogg",
            "audio",
        ),
        (
            {"type": "video_url", "video_url": {"url": data_url("dog.mp4", "video/mp4")}},
            "dog.mp4",
            "video",
        ),
        (
            {
                "type": "file",
                "file": {
                    "file_data": data_url("chair.ply", "application/octet-stream"),
                    "filename": "chair.ply",
                },
                "modality": "point",
            },
            "chair.ply",
            "point",
        ),
        (photo(modality="depth"), ("dog.jpg", "depth"), "depth"),
        (
            {"type": "text", "text": "a dog that barks", "modality": "text"},
            None,
            "text",
        ),
    ],
    ids=["image", "image-as-text", "sound", "video", "shape", "depth", "sensed-text"],
)
def test_media_are_answered_as_by_the_chat_model(ask, part, name, modality):
    if name is None:
        medium = Media.from_text("a dog that barks")
    elif isinstance(name, tuple):
        medium = Media.from_path(MEDIA / name[0], modality=name[1])
    else:
        medium = Media.from_path(MEDIA / name)
    found = ask(about(part))
    assert found.choices[0].message.content == own_answer(medium)
    assert found.usage.prompt_tokens_details.media == {modality: 1}


def test_weights_of_a_mixture_count(ask):
    mixed = [photo("dog.jpg", weight=0.9), photo("boat.jpg", extras={"weight": 0.1})]
    swapped = [photo("dog.jpg", weight=0.1), photo("boat.jpg", extras={"weight": 0.9})]
    found = [ask(about(*parts)) for parts in (mixed, swapped)]
    for reply, weights in zip(found, ((0.9, 0.1), (0.1, 0.9)), strict=True):
        names = zip(("dog.jpg", "boat.jpg"), weights, strict=True)
        media = [Media.from_path(MEDIA / name, weight=weight) for name, weight in names]
        assert reply.choices[0].message.content == own_answer(*media)
    assert found[0].usage.prompt_tokens_details.media == {"image": 2}


def test_the_visual_cache_is_set_by_request(ask):
    for setting in (False, {"k": 3, "temperature": 5.0, "weight": 1.0}):
        found = ask(about(photo()), extra_body={"visual_cache": setting})
        expected = own_answer(Media.from_path(MEDIA / "dog.jpg"), visual_cache=setting)
        assert found.choices[0].message.content == expected


def test_no_request_names_a_folder_of_the_server(ask):
    """What a request says opens no file: neither as the cache's folder nor as a medium."""
    with pytest.raises(openai.BadRequestError, match="folder"):
        ask(extra_body={"visual_cache": {"folder": str(POCKET_FOLDER / "cache")}})
    dog = MEDIA / "dog.jpg"
    for part in (
        {"type": "image_url", "image_url": {"url": str(dog)}},
        {"type": "image_url", "image_url": {"url": dog.as_uri()}},
        {"type": "image", "path": str(dog)},
        {"type": "file", "file": {"file_id": str(dog)}},
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}},
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(about(part))
        assert caught.value.body["type"] == "invalid_request_error"


def test_streamed_events_add_up_to_the_whole(ask):
    options = {"logprobs": True, "top_logprobs": 2}
    whole = ask(about(photo()), **options)
    events = list(
        ask(about(photo()), stream=True, stream_options={"include_usage": True}, **options)
    )
    *parts, last = events
    assert len({event.id for event in events}) == 1
    assert {event.object for event in events} == {"chat.completion.chunk"}
    first = parts[0].choices[0].delta
    assert (first.role, first.content) == ("assistant", "")
    text = "".join(event.choices[0].delta.content or "" for event in parts)
    assert text == whole.choices[0].message.content
    reasons = [event.choices[0].finish_reason for event in parts]
    assert reasons == [None] * (len(parts) - 1) + [whole.choices[0].finish_reason]
    assert all(event.usage is None for event in parts)
    assert last.choices == []
    assert last.usage == whole.usage
    told = [e.choices[0].logprobs.content for e in parts if e.choices[0].logprobs]
    tokens = [entry for entries in told for entry in entries]
    assert [t.token for t in tokens] == [t.token for t in whole.choices[0].logprobs.content]
    assert all(len(token.top_logprobs) == 2 for token in tokens)
    assert "".join(token.token for token in tokens).startswith(text)


def test_usage_is_streamed_only_where_it_is_asked_for(ask):
    events = list(ask(stream=True))
    assert all(event.usage is None and event.choices for event in events)
    assert "usage" not in events[0].model_fields_set


def test_server_sent_events_are_written_as_openai_writes_them(address):
    body = {"model": "pocket", "messages": QUESTION, "stream": True, "max_tokens": 4}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        text = reply.read().decode()
    lines = text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: {") and "\n" not in line for line in lines[:-2])


def test_several_choices_whole_and_streamed_with_one_seed(ask):
    options = {"n": 3, "seed": 7, "temperature": 1.0, "max_tokens": 12}
    whole = ask(**options)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    streamed, ended = ["", "", ""], set()
    for event in ask(stream=True, **options):
        for choice in event.choices:
            streamed[choice.index] += choice.delta.content or ""
            ended |= {choice.index} if choice.finish_reason else set()
    assert streamed == texts
    assert ended == {0, 1, 2}
    assert [c.message.content for c in ask(**options).choices] == texts
    alone = ask(**{**options, "n": 1, "seed": 8})
    assert alone.choices[0].message.content == texts[1]
    assert whole.usage.completion_tokens > alone.usage.completion_tokens


def test_a_stop_text_ends_the_answer_before_it(ask):
    text = ask().choices[0].message.content
    word = text.split()[1]
    for stop in (word, [word, "nothing of this"]):
        found = ask(stop=stop).choices[0]
        assert found.message.content == text[: text.index(word)]
        assert found.finish_reason == "stop"


def test_max_tokens_in_both_spellings(ask):
    for options in ({"max_tokens": 3}, {"max_tokens": None, "max_completion_tokens": 3}):
        found = ask(**options)
        assert found.choices[0].finish_reason == "length"
        assert found.usage.completion_tokens == 3


TOLD = [{"role": "user", "content": "How will the weather in Oslo be?"}]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "get_forecast"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "get_forecast"}}],
            },
        },
    ],
    ids=["required", "named", "allowed"],
)
def test_calls_whole_and_streamed(ask, choice):
    options = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 64}
    found = ask(TOLD, **options).choices[0]
    assert found.finish_reason == "tool_calls"
    assert found.message.content is None
    call = found.message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "get_forecast")
    assert call.id.startswith("call_")
    assert json.loads(call.function.arguments)["city"] in {"Rome", "Oslo"}
    calls = {}
    events = list(ask(TOLD, stream=True, **options))
    for event in events:
        for part in event.choices[0].delta.tool_calls or ():
            if part.id:
                assert part.type == "function"
                calls[part.index] = [part.function.name, ""]
            else:
                assert part.function.name is None
            calls[part.index][1] += part.function.arguments
    told = [c.function for c in found.message.tool_calls]
    assert calls == {i: [f.name, f.arguments] for i, f in enumerate(told)}
    assert events[0].choices[0].delta.content is None
    assert events[-1].choices[0].finish_reason == "tool_calls"


def test_a_conversation_with_a_tool_goes_on(ask):
    call = ask(TOLD, tools=[WEATHER], tool_choice="required").choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "It will rain."}
    found = ask([*TOLD, call, result], tools=[WEATHER], tool_choice="none").choices[0]
    assert found.finish_reason in {"stop", "length"}
    assert found.message.content
    assert found.message.tool_calls is None


def test_no_parallel_calls_means_one_call(ask):
    found = ask(TOLD, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert len(found.choices[0].message.tool_calls) == 1


def test_answers_by_a_schema_are_parsed_by_the_client(client):
    from pydantic import BaseModel

    class Seen(BaseModel):
        name: str
        is_alive: bool

    found = client.chat.completions.parse(
        model="pocket", messages=about(photo()), response_format=Seen, max_tokens=64, temperature=0
    )
    assert isinstance(found.choices[0].message.parsed, Seen)
    with client.chat.completions.stream(
        model="pocket", messages=about(photo()), response_format=Seen, max_tokens=64, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == found.choices[0].message.parsed
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_json_objects(ask):
    found = ask(response_format={"type": "json_object"}, max_tokens=48).choices[0]
    assert isinstance(json.loads(found.message.content), dict)


def test_a_list_by_a_schema(ask):
    schema = {"type": "array", "items": {"enum": ["dog", "boat"]}, "minItems": 1, "maxItems": 2}
    named = {"type": "json_schema", "json_schema": {"name": "seen", "schema": schema}}
    found = ask(response_format=named, max_tokens=48).choices[0]
    assert set(json.loads(found.message.content)) <= {"dog", "boat"}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].user.content"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, None),
        ({"frequency_penalty": 0.5}, None),
        ({"tool_choice": "required"}, None),
        ({"messages": about({"type": "image_url", "image_url": {"url": "data:,x"}})}, "messages"),
        ({"messages": about({"type": "sculpture"})}, "messages[0].user.content"),
        ({"messages": about(photo(weight=1e300))}, "messages"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
        ),
        ({"response_format": {"type": "poem"}}, "response_format"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_a_bad_request_that_says_where(ask, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(**options)
    body = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}
    assert body["type"] == "invalid_request_error"
    assert (body["param"] or "").startswith(param or "")
    assert body["message"]


def test_a_schema_that_cannot_be_enforced_is_refused_by_its_keyword(ask):
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="not"):
        ask(response_format=named)


def test_too_long_a_conversation_has_openais_code(ask):
    with pytest.raises(openai.BadRequestError) as caught:
        ask([{"role": "user", "content": "word " * 30_000}])
    assert caught.value.code == "context_length_exceeded"


def test_unknown_models_and_paths_are_not_found(ask, client, address):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(model=str(POCKET_FOLDER))
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="pocket", prompt="x")
    assert "/v1/completions" in caught.value.body["message"]


def test_models(client):
    models = client.models.list().data
    assert models[0].id == "pocket"
    assert (models[0].object, models[0].owned_by) == ("model", "ibllm-tools")
    assert client.models.retrieve("pocket") == models[0]


def test_a_wrong_key_is_refused(address):
    for sent in ("Bearer wrong", "Bearer ключ", "Bearer", KEY, f"Basic {KEY}", ""):
        headers = {"Authorization": sent.encode()}
        reply = get(f"{address}/v1/models", headers=headers)
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"
        assert reply.headers["www-authenticate"] == "Bearer"
    assert get(f"{address}/v1/models", auth=("user", KEY)).status_code == 401
    assert get(f"{address}/health").status_code == 200


def test_embeddings_of_texts_in_both_encodings(client):
    own = ImageBindEmbeddings().embed_documents(["a dog", "the sea"])
    for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        found = client.embeddings.create(model="pocket", input=["a dog", "the sea"], **encoding)
        assert [entry.index for entry in found.data] == [0, 1]
        for entry, expected in zip(found.data, own, strict=True):
            vector = entry.embedding
            if isinstance(vector, str):
                import numpy as np

                vector = np.frombuffer(base64.b64decode(vector), "<f4").tolist()
            assert vector == pytest.approx(expected, abs=1e-6)
    assert found.usage.prompt_tokens == found.usage.total_tokens > 4
    one = client.embeddings.create(model="pocket", input="a dog", dimensions=len(own[0]))
    assert one.data[0].embedding == pytest.approx(own[0], abs=1e-6)


def test_embeddings_of_media_and_mixtures(client):
    own = ImageBindEmbeddings()
    dog, boat = (Media.from_path(MEDIA / name) for name in ("dog.jpg", "boat.jpg"))
    expected = own.embed_media([dog, [(dog, 0.25), (boat, 0.75)]])
    mixture = [photo("dog.jpg", weight=0.25), photo("boat.jpg", weight=0.75)]
    found = client.embeddings.create(model="pocket", input=[photo("dog.jpg"), mixture])
    for entry, vector in zip(found.data, expected, strict=True):
        assert entry.embedding == pytest.approx(vector, abs=1e-6)
    said = ["a dog", {"type": "text", "text": "a boat", "weight": 0.5}, photo("dog.jpg")]
    mixed = own.embed_mixed_query(["a dog", (Media.from_text("a boat"), 0.5), dog])
    found = client.embeddings.create(model="pocket", input=[said])
    assert found.data[0].embedding == pytest.approx(mixed, abs=1e-6)
    single = client.embeddings.create(model="pocket", input=photo("dog.jpg"))
    assert single.data[0].embedding == pytest.approx(expected[0], abs=1e-6)


def test_a_text_that_is_a_path_is_a_text(client):
    path = str(MEDIA / "dog.jpg")
    found = client.embeddings.create(model="pocket", input=[path, [path]])
    expected = ImageBindEmbeddings().embed_query(path)
    for entry in found.data:
        assert entry.embedding == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"input": []}, "at least 1"),
        ({"input": ""}, "at least 1"),
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2, 3]]}, "check_embedding_ctx_length=False"),
        ({"input": "x", "dimensions": 3}, "dimensions"),
        ({"input": {"type": "image_url", "image_url": {"url": "/etc/passwd"}}}, "refused"),
    ],
    ids=["none", "empty", "tokens", "token-rows", "dimensions", "path"],
)
def test_inputs_that_cannot_be_embedded(client, sent, told):
    with pytest.raises(openai.BadRequestError, match=told):
        client.embeddings.create(model="pocket", **sent)


async def test_the_asynchronous_client(address):
    import asyncio

    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:

        async def ask(text):
            stream = await client.chat.completions.create(
                model="pocket",
                messages=[{"role": "user", "content": text}],
                max_tokens=8,
                stream=True,
            )
            return "".join([e.choices[0].delta.content or "" async for e in stream])

        texts = await asyncio.gather(*(ask(f"What is {n}?") for n in ("a dog", "the sea", "rain")))
    chat = ChatImageBindLLM(max_tokens=8)
    own = [chat.invoke(f"What is {n}?").text for n in ("a dog", "the sea", "rain")]
    assert texts == own
