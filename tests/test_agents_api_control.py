"""`api_control` the user's way: an API and an MCP server that no model was taught."""

import asyncio
import json
import sys
import textwrap

import pytest
import yaml
from api_server import document, lamp_server
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from scripted_brain import ScriptedBrain, call, result

from ibllm_tools import ConfigurationError, Media
from ibllm_tools.agent_graphs.api_control import create_graph
from ibllm_tools.agent_graphs.openapi import ApiDocument
from ibllm_tools.agent_graphs.picking import pick
from ibllm_tools.demo import MEDIA_FOLDER

pytest.importorskip("langchain_community", reason="pip install ibllm-tools[community]")

THREAD = {"configurable": {"thread_id": "1"}}


@pytest.fixture
def server(socket_enabled):
    with lamp_server() as served:
        yield served


def make(server, script, **options):
    options = {"apis": [document(server.url)], "allowed_hosts": [server.host], **options}
    brain = ScriptedBrain(script=script)
    return brain, create_graph(brain, **options)


def say(*content):
    return {"messages": [HumanMessage(list(content))]}


def told(state):
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def requests(server):
    return [(method, path, body) for method, path, body, _ in server.seen]


# --- OpenAPI --------------------------------------------------------------------------------


def test_an_unseen_api_is_called_and_its_answer_told(server, tmp_path):
    script = [call("find_lamps", name="desk"), call("get_price", lamp_id="l7"), result]
    brain, graph = make(server, script, attachments_dir=tmp_path)
    steps, state = [], {}
    for kind, event in graph.stream(
        say("What is the price of the desk lamp?"), stream_mode=["custom", "values"]
    ):
        steps += [event] if kind == "custom" else []
        state = event if kind == "values" else state
    assert requests(server) == [
        ("GET", "/lamps?name=desk", None),
        ("GET", "/lamps/l7/price", None),
    ]
    assert state["messages"][-1].text == 'It says: {"price": 37, "currency": "coins"}'
    assert [step["step"] for step in steps] == [
        *("offer", "call", "result"),
        *("offer", "call", "result"),
        "offer",
    ]
    assert steps[1]["text"] == 'find_lamps(name="desk")'
    assert "desk lamp" in steps[2]["text"]
    # The picture for a body and the header are no LLM's to give.
    assert "put_picture" not in brain.offered


def test_a_document_comes_from_a_file_a_text_or_an_address(server, tmp_path):
    path = tmp_path / "lamps.json"
    path.write_text(json.dumps(document(server.url)))
    as_yaml = yaml.safe_dump(document(server.url))
    for given in (path, str(path), path.read_text(), as_yaml, f"{server.url}/openapi.json"):
        _, graph = make(server, [call("get_price", lamp_id="l9"), result], apis=[given])
        assert "58" in graph.invoke(say("price of the lantern?"))["messages"][-1].text


def test_a_body_is_built_from_fields_and_headers_are_the_persons(server):
    api = ApiDocument(document(server.url), headers={"Authorization": "Bearer s3cret"})
    script = [call("order_lamp", lamp_id="l7", amount=2), result]
    brain, graph = make(server, script, apis=[api], ask_before="none")
    state = graph.invoke(say("order two desk lamps"))
    (method, path, body, headers) = server.seen[-1]
    assert (method, path, body) == ("POST", "/orders", {"lamp_id": "l7", "amount": 2})
    assert headers["Authorization"] == "Bearer s3cret"
    assert told(state)[0].status == "success"
    assert "s3cret" not in str(brain.seen)


def test_what_a_server_refuses_reaches_the_model(server):
    script = [call("get_price", lamp_id="l1"), call("get_price", lamp_id="l9"), result]
    _, graph = make(server, script)
    state = graph.invoke(say("price?"))
    first, second = told(state)
    assert first.status == "error"
    assert first.text == 'HTTP status 404: {"error": "no such lamp"}'
    assert second.status == "success"


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "asked_for"),
    [
        ("../../admin", "/lamps/..%2F..%2Fadmin/price"),
        ("x?key=1#y", "/lamps/x%3Fkey%3D1%23y/price"),
        ("http://evil.example/", "/lamps/http%3A%2F%2Fevil.example%2F/price"),
    ],
)
def test_what_a_model_writes_never_leaves_its_place(server, written, asked_for):
    _, graph = make(server, [call("get_price", lamp_id=written), result])
    graph.invoke(say("price?"))
    assert requests(server) == [("GET", asked_for, None)]


@pytest.mark.parametrize("arguments", [{"lamp_id": ".."}, {}, {"lamp_id": "l7", "host": "evil"}])
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(server, arguments):
    _, graph = make(server, [call("get_price", **arguments), result])
    state = graph.invoke(say("price?"))
    assert told(state)[0].status == "error"
    assert "expected" in told(state)[0].text
    assert server.seen == []


def test_a_host_that_is_not_listed_is_refused(server):
    for allowed in ([], ["127.0.0.1:1"], ["example.com"]):
        with pytest.raises(ConfigurationError, match=rf"found the host {server.host}.*--host"):
            make(server, ["ok"], allowed_hosts=allowed)
    assert server.seen == []


def test_a_document_cannot_lead_to_another_host(server):
    with pytest.raises(ConfigurationError, match=r"found the host 10\.0\.0\.1"):
        make(server, ["ok"], apis=[document("http://10.0.0.1")])


def test_redirects_and_long_answers_are_not_followed(server):
    script = [call("go_far"), call("get_huge"), result]
    _, graph = make(server, script)
    far, huge = told(graph.invoke(say("go")))
    assert far.status == huge.status == "error"
    assert "302" in far.text
    assert huge.text == "found more than 1,048,576 bytes"
    assert [path for _, path, _ in requests(server)] == ["/far", "/huge"]


def test_too_many_calls_are_refused(server):
    script = [call("get_price", lamp_id="l7")] * 4 + [result]
    _, graph = make(server, script, max_calls=2)
    state = graph.invoke(say("price?"))
    assert len(server.seen) == 2
    assert "limit" in told(state)[-1].text.lower()


def test_broken_documents_are_told(server, tmp_path):
    for given, reason in (
        ("{}", "no OpenAPI document"),
        ('{"swagger": "2.0"}', "no OpenAPI document"),
        ("openapi: '2.0'\ninfo: {}", "openapi 3"),
        (tmp_path / "none.json", "no file"),
        ({"openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "paths": {}}, "server"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            make(server, ["ok"], apis=[given])


# --- a human before what changes ------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approve", "reject", "edit"])
def test_a_human_is_asked_before_what_changes(server, decision):
    script = [call("delete_lamp", lamp_id="l7"), result]
    _, graph = make(server, script, checkpointer=InMemorySaver())
    state = graph.invoke(say("delete the desk lamp"), THREAD)
    (asked,) = state["__interrupt__"]
    (request,) = asked.value["action_requests"]
    assert (request["name"], request["args"]) == ("delete_lamp", {"lamp_id": "l7"})
    assert server.seen == []
    answer = {"type": decision}
    if decision == "edit":
        answer["edited_action"] = {"name": "delete_lamp", "args": {"lamp_id": "l9"}}
    state = graph.invoke(Command(resume={"decisions": [answer]}), THREAD)
    gone = {"approve": ["/lamps/l7"], "reject": [], "edit": ["/lamps/l9"]}
    assert [path for _, path, _ in requests(server)] == gone[decision]
    assert isinstance(state["messages"][-1], AIMessage)


def test_without_a_place_to_wait_nothing_is_changed(server):
    _, graph = make(server, [call("delete_lamp", lamp_id="l7"), result])
    state = graph.invoke(say("delete the desk lamp"))
    assert "__interrupt__" in state
    assert server.seen == []


def test_whom_to_ask_before_can_be_chosen(server):
    for ask_before, is_asked in (("all", True), ("none", False), (["get_price"], True)):
        script = [call("get_price", lamp_id="l7"), result]
        _, graph = make(server, script, ask_before=ask_before, checkpointer=InMemorySaver())
        assert ("__interrupt__" in graph.invoke(say("price?"), THREAD)) is is_asked
    with pytest.raises(ConfigurationError, match="get_prices"):
        make(server, ["ok"], ask_before=["get_prices"])


# --- Python tools, media, and the fewest tools ----------------------------------------------


def test_functions_are_tools_and_their_failures_are_answers(tmp_path):
    def ring(bell: str) -> str:
        """Ring a bell."""
        raise RuntimeError(f"secret of {bell}")

    brain = ScriptedBrain(script=[call("ring", bell="big"), result])
    graph = create_graph(brain, tools=[ring], ask_before="none")
    assert told(graph.invoke(say("ring")))[0].text == "ring failed: RuntimeError"


def test_a_model_without_eyes_asks_about_a_photo_before_it_calls(server, tmp_path):
    @tool
    def feed(animal: str) -> str:
        """Feed an animal."""
        return f"fed: {animal}"

    script = [
        call("perceive", question="What animal is this?", attachments=["image-1"]),
        lambda messages: call("feed", animal="dog" if "dog" in messages[-1].text else "none"),
        result,
    ]
    brain = ScriptedBrain(script=script)
    graph = create_graph(brain, tools=[feed], ask_before="none", attachments_dir=tmp_path)
    state = graph.invoke(say("Feed it.", Media.from_path(MEDIA_FOLDER / "dog.jpg")))
    assert "perceive" in brain.offered
    assert told(state)[-1].text.startswith("fed: ")


def test_two_tools_of_one_name_are_refused(server):
    with pytest.raises(ConfigurationError, match="two tools named"):
        make(server, ["ok"], apis=[document(server.url)] * 2)


def test_the_fewest_tools_are_those_that_share_words(server):
    _, graph = make(server, ["ok"])
    tools = list(graph.nodes["tools"].bound.tools_by_name.values())
    assert [t.name for t in pick("What is the price of lamp l7?", tools, 1)] == ["get_price"]
    assert [t.name for t in pick("Please order 3 lamps", tools, 1)] == ["order_lamp"]
    assert pick("How are you?", tools, 2) == []
    assert pick("How are you?", tools[:2], 2) == tools[:2]


def test_a_small_model_is_offered_few(server):
    brain, graph = make(server, ["fine"], max_offered=1)
    graph.invoke(say("Get the price of lamp l7"))
    assert brain.offered == ["get_price"]


def test_pocket_calls_an_api_it_never_saw(server):
    """Pocket's wording is its own; that it calls the right operation in most asks is asserted."""
    graph = create_graph(apis=[document(server.url)], allowed_hosts=[server.host], max_offered=1)
    for lamp in ("l7", "l9", "l7"):
        graph.invoke(say(f"Get the price of the lamp {lamp}."))
    assert sum("/price" in path for _, path, _ in requests(server)) >= 2


# --- MCP ------------------------------------------------------------------------------------

MCP_SERVER = """
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    server = MCPServer("tides")

    @server.tool(annotations=ToolAnnotations(readOnlyHint=True))
    def tide(port: str) -> str:
        '''Tell the tide at a port.'''
        return f"the tide at {port} is high"

    @server.tool()
    def open_lock(name: str) -> str:
        '''Open a lock.'''
        raise ToolError(f"{name} is rusty")

    server.run("stdio")
"""


@pytest.fixture(scope="module")
def tides(tmp_path_factory):
    pytest.importorskip("fastmcp", reason="pip install ibllm-tools[agents]")
    path = tmp_path_factory.mktemp("mcp") / "tides.py"
    path.write_text(textwrap.dedent(MCP_SERVER))
    return path


async def test_a_real_mcp_server_is_called(tides, socket_enabled):
    script = [call("tide", port="Brest"), call("open_lock", name="gate"), result]
    brain = ScriptedBrain(script=script)
    graph = create_graph(brain, mcp_servers=[tides], checkpointer=InMemorySaver())
    state = await graph.ainvoke(say("How is the tide?"), THREAD)
    assert set(brain.offered) == {"tide", "open_lock"}
    assert told(state)[0].text == "the tide at Brest is high"
    (asked,) = state["__interrupt__"]  # it does not only read
    assert asked.value["action_requests"][0]["name"] == "open_lock"
    approve = Command(resume={"decisions": [{"type": "approve"}]})
    state = await graph.ainvoke(approve, THREAD)
    assert told(state)[1].status == "error"
    assert "rusty" in told(state)[1].text
    brain.seen.clear()  # and without an event loop, in another thread
    again = await asyncio.to_thread(
        graph.invoke, say("tide?"), {"configurable": {"thread_id": "2"}}
    )
    assert told(again)[0].text == "the tide at Brest is high"


def test_an_mcp_server_that_is_none_is_told(tmp_path, socket_enabled):
    for server in ([sys.executable, "-c", "pass"], [str(tmp_path / "none")], "tides.py"):
        with pytest.raises(ConfigurationError, match="MCP server"):
            create_graph(ScriptedBrain(script=["ok"]), mcp_servers=[server])
