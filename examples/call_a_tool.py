"""Let the model call a tool, run it, and let the model answer with the result."""

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from ibllm_tools import ChatImageBindLLM


@tool
def find_price(item: str) -> str:
    """Find the price of an item."""
    return {"lamp": "37 coins", "ladder": "58 coins"}.get(item, "not sold")


chat = ChatImageBindLLM().bind_tools([find_price])
history = [HumanMessage("What is the price of the lamp?")]
history.append(chat.invoke(history))
for call in history[-1].tool_calls:
    print(f"{call['name']}({call['args']})")
    history.append(find_price.invoke(call))
print(chat.invoke(history).text)
