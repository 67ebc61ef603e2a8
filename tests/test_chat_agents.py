"""The chat model inside LangChain and LangGraph: agents, threads, histories, registries."""

import pytest
from chat_samples import ask, picture, sound
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain.chat_models import init_chat_model
from langchain.embeddings import init_embeddings
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, Field
from tiny_model import save_tiny_model

from ibllm_tools import (
    ChatImageBindLLM,
    ImageBindEmbeddings,
    count_text_tokens,
    register_provider,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), n_context=4096)


@pytest.fixture(scope="module")
def chat(folder):
    return ChatImageBindLLM(model=folder, max_tokens=150)


class Verdict(BaseModel):
    """What was found."""

    colour: str = Field(max_length=8)
    sure: bool


# --- agents ---------------------------------------------------------------------------------

PRICES = {"lamp": 37, "ladder": 58, "kettle": 24, "blanket": 19, "mirror": 86}


def shop_agent(called):
    @tool
    def find_price(item: str) -> str:
        """Find the price of an item."""
        called.append(item)
        return f"{PRICES.get(item.lower(), 11)} coins"

    return create_agent(ChatImageBindLLM(), [find_price])


def test_an_agent_of_pocket_calls_its_tool_and_answers_with_the_result():
    """A majority of five whole loops: the model decides to call, and says what came back."""
    right = []
    for item, price in PRICES.items():
        called = []
        question = {"messages": [HumanMessage(f"What is the price of the {item}?")]}
        messages = shop_agent(called).invoke(question, {"recursion_limit": 8})["messages"]
        assert isinstance(messages[-1], AIMessage)
        right.append(item in called and str(price) in messages[-1].text)
    assert sum(right) >= 3, right


@pytest.mark.parametrize("strategy", [None, ProviderStrategy, ToolStrategy])
def test_an_agent_returns_structured_responses(chat, strategy):
    wanted = Verdict if strategy is None else strategy(Verdict)
    agent = create_agent(chat, [], response_format=wanted)
    found = agent.invoke({"messages": [HumanMessage("what is it?")]})
    assert isinstance(found["structured_response"], Verdict)


def test_an_agents_structured_response_comes_after_its_calls(chat):
    @tool
    def look() -> str:
        """Look at it."""
        return "grey"

    bold = chat.model_copy(update={"temperature": 5.0, "seed": None})
    agent = create_agent(bold, [look], response_format=Verdict)
    found = agent.invoke({"messages": [HumanMessage("hm?")]}, {"recursion_limit": 200})
    assert isinstance(found["structured_response"], Verdict)


async def test_an_agent_streams_tokens(chat):
    agent = create_agent(chat, [])
    question = {"messages": [HumanMessage("hm?")]}
    pieces = [p async for p, _ in agent.astream(question, stream_mode="messages")]
    assert len([piece for piece in pieces if piece.text]) > 10


def test_summaries_are_not_started_by_the_base64_of_a_sound(chat):
    def run(counter):
        summarizer = SummarizationMiddleware(
            chat, trigger=("tokens", 2000), keep=("messages", 1), token_counter=counter
        )
        agent = create_agent(chat, [], middleware=[summarizer])
        talk = [*ask("what is it?", sound()), AIMessage("rain"), HumanMessage("and?")]
        return agent.invoke({"messages": talk})["messages"]

    for counter in (count_text_tokens, chat.get_num_tokens_from_messages):
        messages = run(counter)
        assert [m.text for m in messages[:3]] == ["what is it?", "rain", "and?"]


def test_a_fraction_of_the_context_is_known_to_middleware(chat):
    assert chat.profile["max_input_tokens"] == 4096
    assert SummarizationMiddleware(chat, trigger=("fraction", 0.5))
    assert ChatImageBindLLM().profile["max_input_tokens"] == 2048


# --- threads and histories ------------------------------------------------------------------


def test_threads_of_a_graph_keep_their_pictures_apart(chat):
    graph = StateGraph(MessagesState)
    graph.add_node("chat", lambda state: {"messages": chat.invoke(state["messages"])})
    graph.add_edge(START, "chat")
    app = graph.compile(checkpointer=InMemorySaver())

    def say(thread, *content):
        config = {"configurable": {"thread_id": thread}}
        return app.invoke({"messages": ask(*content)}, config)["messages"][-1].text

    firsts = [say(t, "what is it?", m) for t, m in (("a", picture(0)), ("b", picture(1)))]
    seconds = [say(thread, "and?") for thread in ("a", "b")]
    assert firsts[0] != firsts[1]
    assert seconds[0] != seconds[1]
    history = [*ask("what is it?", picture(0)), AIMessage(firsts[0]), HumanMessage("and?")]
    assert seconds[0] == chat.invoke(history).text


def test_a_message_history_keeps_the_picture(chat):
    kept = {}
    told = RunnableWithMessageHistory(
        chat, lambda session_id: kept.setdefault(session_id, InMemoryChatMessageHistory())
    )
    config = {"configurable": {"session_id": "s"}}
    first = told.invoke(ask("what is it?", picture()), config)
    second = told.invoke([HumanMessage("and?")], config)
    assert len(kept["s"].messages) == 4
    history = [*ask("what is it?", picture()), first, HumanMessage("and?")]
    assert second.text == chat.invoke(history).text


# --- registries -----------------------------------------------------------------------------


def test_init_chat_model_makes_one_once_the_provider_is_registered(folder):
    register_provider()
    register_provider()
    made = init_chat_model("imagebind:pocket", temperature=0.5)
    assert isinstance(made, ChatImageBindLLM)
    assert (made.model, made.temperature) == ("pocket", 0.5)
    assert isinstance(init_embeddings("imagebind:pocket"), ImageBindEmbeddings)
    other = init_chat_model(str(folder), model_provider="imagebind", max_tokens=3)
    assert other.invoke("hi").usage_metadata["output_tokens"] == 3


def test_a_model_may_be_chosen_at_run_time(folder):
    register_provider()
    chosen = init_chat_model(model_provider="imagebind", configurable_fields=("model",))
    config = {"configurable": {"model": str(folder)}}
    assert chosen.invoke("hi", config).response_metadata["model_name"] == str(folder)
