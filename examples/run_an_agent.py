"""An agent of LangChain on the local model: it calls its tool until it can answer."""

from langchain.agents import create_agent
from langchain_core.tools import tool

from ibllm_tools import ChatImageBindLLM


@tool
def count_stock(item: str) -> str:
    """Count how many of an item are in stock."""
    return {"ladder": "14"}.get(item, "3")


agent = create_agent(ChatImageBindLLM(), [count_stock])
question = {"role": "user", "content": "How many of the ladder are in stock?"}
for message in agent.invoke({"messages": [question]})["messages"]:
    message.pretty_print()
