"""`find_similar` and `embed_media`: attachments and stored media in one space of vectors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from threading import Lock
from typing import Any

import numpy as np
from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, ToolException

from ibllm_tools.attachments.lookup import looks_like_id, looks_like_place
from ibllm_tools.attachments.messages import ids_for_people
from ibllm_tools.attachments.records import Attachment
from ibllm_tools.embeddings import ImageBindEmbeddings
from ibllm_tools.errors import IbllmError
from ibllm_tools.media import Media
from ibllm_tools.routing import ids_in, is_chinese
from ibllm_tools.routing.tool_texts import likeness_text
from ibllm_tools.toolkit.access import (
    Access,
    Held,
    Result,
    make_tool,
    question_in,
    told_to_the_model,
)
from ibllm_tools.toolkit.schemas import EmbedArgs, SimilarArgs
from ibllm_tools.vectorstores import ImageBindVectorStore

SIMILAR_HERE = (
    "Find which other attachments of this conversation are most like one of them, or best fit "
    "some words; pictures, sounds, videos and shapes compare with each other. Do not use it to "
    "ask what an attachment shows."
)
SIMILAR_STORED = (
    "Search the collection for media and texts that are like an attachment, or that fit some "
    "words. Do not use it to ask what an attachment shows, or to compare attachments."
)
EMBED = (
    "Compute the embedding of an attachment: a vector of numbers for programs. Do not use it to "
    "learn what an attachment shows; the numbers tell an LLM nothing."
)
_N_KEPT = 512
Vector = list[float]


class Likeness:
    """Holds the embeddings, and the vectors of what was compared before."""

    def __init__(
        self,
        access: Access,
        embeddings: ImageBindEmbeddings,
        store: ImageBindVectorStore | None,
    ) -> None:
        """Search `store`, or among attachments where there is none."""
        self._access = access
        self._embeddings = embeddings
        self._store = store
        self._kept: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self._lock = Lock()

    def tools(self) -> list[BaseTool]:
        """The two tools."""
        told = SIMILAR_HERE if self._store is None else SIMILAR_STORED
        return [
            make_tool("find_similar", told, SimilarArgs, self.find_similar),
            make_tool("embed_media", EMBED, EmbedArgs, self.embed_media),
        ]

    def find_similar(
        self,
        query: str,
        k: int = 4,
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Find what is most alike."""
        with told_to_the_model():
            held = self._access.held(runtime)
            named = query.strip().strip("[]").partition(":")[0].strip() in held.records
            meant = named or looks_like_id(query) or looks_like_place(query)
            record, media = held.media(query) if meant else (None, None)
            if self._store is not None:
                return self._search(media or query, k)
            drawn = ids_for_people(runtime.state.get("messages", ())) if runtime else ()
            results = self._compare(held, record, media, query, drawn)[:k]
            told = record["id"] if record is not None else f'"{query}"'
            question = question_in(runtime)
            asked, chinese = ids_in(question, list(held.records)), is_chinese(question)
            return likeness_text(told, results, asked, chinese=chinese), {"results": results}

    def embed_media(
        self,
        attachment: str,
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Compute a vector."""
        with told_to_the_model():
            record, media = self._access.held(runtime).media(attachment)
            vector = self._vector(record, media)
            artifact = {"id": record["id"], "vector": vector, "model": self._embeddings.model}
            return f"The embedding of {record['id']} has {len(vector)} numbers.", artifact

    def _search(self, query: Media | str, k: int) -> Result:
        assert self._store is not None
        found = self._store.similarity_search_with_score(query, k)
        results = [
            {"id": doc.id, "text": doc.page_content, "score": round(score, 4), **_source(doc)}
            for doc, score in found
        ]
        lines = [f"{r['score']:.2f} {r['text']} (id {r['id']})" for r in results]
        return "\n".join(lines) or "The collection is empty.", {"results": results}

    def _compare(
        self,
        held: Held,
        record: Attachment | None,
        media: Media | None,
        query: str,
        drawn: Collection[str],
    ) -> list[dict[str, Any]]:
        others = [
            other
            for other in held.records.values()
            if other is not record and other["id"] not in drawn
        ]
        if not others:
            raise ToolException(
                "there is no other attachment to compare with; ask the user to attach one"
            )
        if record is not None and media is not None:
            wanted = self._vector(record, media)
        else:
            wanted = self._embeddings.embed_query(query)
        results: list[dict[str, Any]] = []
        for other in others:
            try:
                vector = self._vector(other, held.media(other["id"])[1])
            except IbllmError as error:  # one that cannot be compared does not spoil the rest
                results.append({"id": other["id"], "score": None, "error": str(error)})
            else:
                score = round(float(np.dot(wanted, vector)), 4)
                results.append({"id": other["id"], "name": other["name"], "score": score})
        return sorted(results, key=_rank)

    def _vector(self, record: Attachment, media: Media) -> Vector:
        key = record["sha256"], record["modality"]
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        vector = self._embeddings.embed_media([media])[0]
        with self._lock:
            self._kept[key] = vector
            if len(self._kept) > _N_KEPT:
                self._kept.popitem(last=False)
        return vector


def _source(document: Any) -> dict[str, Any]:
    kept = ("modality", "source")
    return {key: document.metadata[key] for key in kept if key in document.metadata}


def _rank(result: dict[str, Any]) -> tuple[bool, float]:
    """Most alike first; what cannot be compared last."""
    score = result["score"]
    return score is None, -(score or 0.0)
