"""What a model thinks before it answers: apart from the answer, streamed, and kept in history.

The tiny model's template opens its thoughts; by chance it closes them sooner or later.
"""

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from tiny_model import save_tiny_model

from ibllm_tools import ChatImageBindLLM


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"), thinks=True)
    return ChatImageBindLLM(model=folder, max_tokens=200, temperature=8.0)


@pytest.fixture(scope="module")
def thoughtful(chat):
    """A seed by which the model thinks, says what it thought, and answers."""
    for seed in range(30):
        answer = chat.invoke("hi", seed=seed)
        if answer.text and answer.additional_kwargs.get("reasoning_content"):
            return seed
    pytest.fail("no seed makes the model think")


def test_thoughts_are_no_part_of_the_answer(chat, thoughtful):
    answer = chat.invoke("hi", seed=thoughtful)
    thoughts = answer.additional_kwargs["reasoning_content"]
    assert "think>" not in answer.text + thoughts
    assert thoughts not in answer.text
    assert answer.content_blocks[0] == {"type": "reasoning", "reasoning": thoughts}
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"]
    usage = answer.usage_metadata
    assert 0 < usage["output_token_details"]["reasoning"] < usage["output_tokens"]


def test_thoughts_are_streamed_apart(chat, thoughtful):
    chunks = list(chat.stream("hi", seed=thoughtful))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    answer = chat.invoke("hi", seed=thoughtful)
    assert (whole.text, whole.additional_kwargs) == (answer.text, answer.additional_kwargs)
    assert whole.usage_metadata == answer.usage_metadata
    assert sum("reasoning_content" in chunk.additional_kwargs for chunk in chunks) > 1


async def test_thoughts_come_without_a_thread_too(chat, thoughtful):
    answer = await chat.ainvoke("hi", seed=thoughtful)
    assert answer.additional_kwargs == chat.invoke("hi", seed=thoughtful).additional_kwargs


def test_thoughts_are_blocks_of_v1(chat, thoughtful):
    blocky = chat.model_copy(update={"output_version": "v1"})
    answer = blocky.invoke("hi", seed=thoughtful)
    assert [block["type"] for block in answer.content] == ["reasoning", "text"]


@pytest.mark.parametrize("form", ["kept", "v1", "other"])
def test_thoughts_come_back_from_the_history(chat, form):
    """Those of this model do; another provider's are passed over."""
    thought = {"reasoning_content": "hmm"}
    said = {
        "kept": AIMessage("yes", additional_kwargs=thought),
        "v1": AIMessage(
            [{"type": "reasoning", "reasoning": "hmm"}, {"type": "text", "text": "yes"}]
        ),
        "other": AIMessage(
            "yes", additional_kwargs=thought, response_metadata={"model_provider": "other"}
        ),
    }[form]

    def count(answer):
        history = [HumanMessage("hi"), answer, HumanMessage("and?")]
        return chat.get_num_tokens_from_messages(history)

    marks = 0 if form == "other" else len("hmm") + 2
    assert count(said) == count(AIMessage("yes")) + marks


def test_the_profile_tells_that_it_thinks(chat):
    assert chat.profile["reasoning_output"] is True
