"""Get an object in place of text: decoding is held to the schema, so that it always parses."""

from typing import Literal

from langchain_core.messages import HumanMessage
from pydantic import BaseModel, Field

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media


class Sighting(BaseModel):
    """What is in a photo."""

    thing: str = Field(description="what is in the photo")
    kind: Literal["animal", "vehicle", "instrument", "furniture"]


form = ChatImageBindLLM().with_structured_output(Sighting)
for name in ("dog.jpg", "motorcycle.jpg", "piano.jpg"):
    photo = Media.from_path(f"{ibllm_tools.__path__[0]}/demo_media/{name}")
    print(name, form.invoke([HumanMessage(["What is in the photo?", photo])]))
