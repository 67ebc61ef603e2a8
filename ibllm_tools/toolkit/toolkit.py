"""`ImageBindLLMToolkit`: perception as tools for any LLM."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, BaseToolkit
from pydantic import ConfigDict, Field

from ibllm_tools.attachments.store import AttachmentStore
from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.embeddings import ImageBindEmbeddings
from ibllm_tools.media import MediaPolicy
from ibllm_tools.toolkit.access import Access
from ibllm_tools.vectorstores import ImageBindVectorStore


class ImageBindLLMToolkit(BaseToolkit):
    """Tools by which any LLM perceives attachments: it names them by id, never by path.

    `perceive` (a question about one or more attachments, mixed by weights), `analyze_video`,
    `find_similar`, `embed_media`; with a detector also `detect_objects`, with a recognizer also
    `transcribe_speech`. Each returns text for the LLM, and an artifact for programs.

    Key init args:
        chat: The model that perceives; pocket by default.
        embeddings: What compares media; those of the chat model by default.
        detector: A `Detector`, the checkpoint of one, True for the one that ships, False for
            none. By default the one that ships, if one does.
        recognizer: Likewise a `Recognizer`.
        vectorstore: Where `find_similar` searches; by default among the attachments.
        attachments: An `AttachmentStore` for calls outside of an agent. Inside of one, tools
            find the attachments in its state, which `AttachmentMiddleware` keeps.
        media_policy: Limits on decoding.

    Instantiate:
        ```python
        from ibllm_tools import AttachmentStore, ImageBindLLMToolkit, Media

        store = AttachmentStore()
        dog = store.add(Media.from_path("dog.jpg"))
        tools = {tool.name: tool for tool in ImageBindLLMToolkit(attachments=store).get_tools()}
        ```

    Invoke:
        ```python
        print(tools["perceive"].invoke({"question": "What is this?", "attachments": [dog]}))
        ```

    Use in an agent:
        See `create_media_agent` and `AttachmentMiddleware`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    chat: BaseChatModel = Field(default_factory=ChatImageBindLLM)
    embeddings: ImageBindEmbeddings | None = None
    detector: Any = None
    recognizer: Any = None
    vectorstore: ImageBindVectorStore | None = None
    attachments: AttachmentStore | None = None
    media_policy: MediaPolicy = Field(default_factory=MediaPolicy)

    def get_tools(self) -> list[BaseTool]:
        """Make the tools; no weights are read before the first call."""
        from ibllm_tools.toolkit.experts import Experts, ExpertTools
        from ibllm_tools.toolkit.likeness import Likeness
        from ibllm_tools.toolkit.perceiving import Perceiving

        access = Access(self.attachments, self.media_policy)
        experts = Experts(self.detector, self.recognizer)
        perceiving = Perceiving(access, self.chat, experts).tools()
        likeness = Likeness(access, self._embeddings(), self.vectorstore).tools()
        return [*perceiving, *ExpertTools(access, experts).tools(), *likeness]

    def _embeddings(self) -> ImageBindEmbeddings:
        if self.embeddings is not None:
            return self.embeddings
        chat = self.chat
        if isinstance(chat, ChatImageBindLLM):
            return ImageBindEmbeddings(model=chat.model, device=chat.device, dtype=chat.dtype)
        return ImageBindEmbeddings()
