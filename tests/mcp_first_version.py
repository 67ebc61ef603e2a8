"""langchain-mcp-adapters (which needs mcp 1) in an agent, against `ibllm mcp`; prints JSON.

Run with a folder on PYTHONPATH that holds mcp 1 and langchain-mcp-adapters.
"""

import asyncio
import json
import sys
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

sys.path.insert(0, str(Path(__file__).parent))
from scripted_brain import ScriptedBrain, call


async def main(folder):
    server = ["-m", "ibllm_tools.cli", "mcp", "--allow-dir", folder]
    client = MultiServerMCPClient(
        {"ibllm": {"transport": "stdio", "command": sys.executable, "args": server}}
    )
    async with client.session("ibllm") as session:
        await run(await load_mcp_tools(session))


async def run(tools):
    script = [
        call("perceive", question="What is this?", media=[{"path": "dog.jpg"}]),
        call("perceive", question="What is this?", media=[{"path": "/etc/passwd"}]),
        "done",
    ]
    agent = create_agent(ScriptedBrain(script=script), tools)
    state = await agent.ainvoke({"messages": [HumanMessage("Look")]})
    told = [
        {"status": message.status, "text": message.text, "artifact": message.artifact}
        for message in state["messages"]
        if message.type == "tool"
    ]
    print(json.dumps({"tools": [tool.name for tool in tools], "told": told}))


asyncio.run(main(sys.argv[1]))
