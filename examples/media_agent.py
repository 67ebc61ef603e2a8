"""An agent that perceives its attachments: it knows them by id, and asks before it calls a tool."""

import tempfile
from pathlib import Path

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import ibllm_tools
from ibllm_tools import Media, create_media_agent

media = Path(ibllm_tools.__file__).parent / "demo_media"

with tempfile.TemporaryDirectory() as folder:
    agent = create_media_agent(
        checkpointer=InMemorySaver(),
        attachments_dir=folder,
        interrupt_on={"perceive": {"allowed_decisions": ["approve", "reject"]}},
    )
    thread = {"configurable": {"thread_id": "1"}}
    question = ["What is this?", Media.from_path(media / "dog.jpg")]
    state = agent.invoke({"messages": [HumanMessage(question)]}, thread)
    while "__interrupt__" in state:
        asked = state["__interrupt__"][0].value["action_requests"]
        print(
            "May it call", ", ".join(f"{call['name']}({call['args']})" for call in asked), "? Yes."
        )
        decisions = [{"type": "approve"} for _ in asked]
        state = agent.invoke(Command(resume={"decisions": decisions}), thread)

for message in state["messages"]:
    message.pretty_print()
print("\nAttached:", {key: held["name"] for key, held in state["attachments"].items()})
