"""Use the model as a step of a LangChain pipeline: prompt, model, parser."""

from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"


def ask(path: Path) -> list[HumanMessage]:
    return [HumanMessage(["What is this?", Media.from_path(path)])]


chain = RunnableLambda(ask) | ChatImageBindLLM(max_tokens=40) | StrOutputParser()
files = [MEDIA / name for name in ("airplane.jpg", "car.ply", "dog.ogg")]
for file, answer in zip(files, chain.batch(files), strict=True):
    print(f"{file.name}: {answer}")
