"""Talk about a picture over several turns; a new picture takes the place of the old one."""

from pathlib import Path

from langchain_core.messages import HumanMessage

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

chat = ChatImageBindLLM(max_tokens=40)
turns = [
    ["What is in the photo?", Media.from_path(MEDIA / "dog.jpg")],
    ["Where can I find it?"],
    ["And what is in this one?", Media.from_path(MEDIA / "airplane.jpg")],
]
history = []
for content in turns:
    history.append(HumanMessage(content))
    history.append(chat.invoke(history))
    print(f"{content[0]}\n  {history[-1].text}")
