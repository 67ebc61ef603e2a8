"""Ask about many media in one batch: the engine answers them together, step by step."""

import asyncio
from pathlib import Path

from langchain_core.messages import HumanMessage

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

chat = ChatImageBindLLM(max_tokens=40)
files = sorted(path for path in MEDIA.iterdir() if path.suffix != ".md")
prompts = [[HumanMessage(["What is this?", Media.from_path(file)])] for file in files]
for file, answer in zip(files, asyncio.run(chat.abatch(prompts)), strict=True):
    print(f"{file.name}: {answer.text}")
