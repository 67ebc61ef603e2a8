"""Ask about a photo: the shortest way from a file to an answer."""

from pathlib import Path

from langchain_core.messages import HumanMessage

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

chat = ChatImageBindLLM()
photo = Media.from_path(MEDIA / "motorcycle.jpg")
answer = chat.invoke([HumanMessage(["What is in the photo?", photo])])

print(answer.text)
print(answer.usage_metadata)
