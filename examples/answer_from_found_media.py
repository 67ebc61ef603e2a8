"""Answer from what is found: a retriever of media, then the model that looks at them."""

from pathlib import Path

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, ImageBindRetriever, ImageBindVectorStore, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"


def ask_about(found: list[Document]) -> list[HumanMessage]:
    print("found:", ", ".join(document.page_content for document in found))
    media = [Media.from_path(document.metadata["source"]) for document in found]
    return [HumanMessage(["What is this?", *media])]


store = ImageBindVectorStore()
store.add_media([path for path in MEDIA.iterdir() if path.suffix == ".jpg"])
retriever = ImageBindRetriever(vectorstore=store, k=1)
chain = retriever | ask_about | ChatImageBindLLM(max_tokens=40) | StrOutputParser()

for name in ("helicopter.ogg", "dog.mp4", "sea.ogg"):
    print(f"like {name}:")
    print(chain.invoke(MEDIA / name))
