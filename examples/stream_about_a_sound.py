"""Ask about a sound, and show the answer while it is made."""

from pathlib import Path

from langchain_core.messages import HumanMessage

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

chat = ChatImageBindLLM(max_tokens=40)
sound = Media.from_path(MEDIA / "helicopter.ogg")
for chunk in chat.stream([HumanMessage(["What makes this sound?", sound])]):
    print(chunk.text, end="", flush=True)
print()
