"""Mix two media by weight, and move the weight from the one to the other."""

from pathlib import Path

from langchain_core.messages import HumanMessage

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

chat = ChatImageBindLLM(max_tokens=40)
for weight in (0.1, 0.5, 0.9):
    dog = Media.from_path(MEDIA / "dog.jpg", weight=weight)
    sea = Media.from_path(MEDIA / "sea.ogg", weight=1 - weight)
    answer = chat.invoke([HumanMessage(["What could be happening?", dog, sea])])
    print(f"{weight:.1f} dog + {1 - weight:.1f} sea: {answer.text}")
