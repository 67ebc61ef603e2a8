"""`ImageBindLLMProcessor`: conversations and media to what the model takes.

```
messages -> chat template or Alpaca -> token ids, padded left
media    -> load -> preprocess      -> MediaBatch, one row per conversation
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import torch
from transformers.feature_extraction_utils import BatchFeature

from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model.loading import HUB_OPTIONS, fetch_folder
from ibllm_tools.model.prompts import encode_conversation, without_note
from ibllm_tools.model.tool_ranking import RANKER_FOLDER, ToolRanker
from ibllm_tools.preprocess import MediaBatch, PreprocessConfig

if TYPE_CHECKING:
    from ibllm_tools.media import Item, MediaPolicy

CONFIG_FILE = "preprocessor_config.json"

Message: TypeAlias = "Mapping[str, Any]"
Texts: TypeAlias = "str | Sequence[str] | Sequence[Message] | Sequence[Sequence[Message]]"
Medium: TypeAlias = "Item | Mapping[str, Any]"


class ModelInputs(BatchFeature):  # type: ignore[misc]
    """`input_ids` and `attention_mask` (B, T) and `media`, to be passed to the model by `**`."""

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """Move everything to a device; `dtype` is for float inputs of media."""
        for name, value in self.items():
            self[name] = value.to(device, dtype) if name == "media" else value.to(device)
        return self


class ImageBindLLMProcessor:
    """Turns conversations and media into model inputs.

    Text in messages never becomes a special token of the tokenizer; only its chat template
    makes them.

    Args:
        tokenizer: A tokenizer of transformers. Without a chat template the Stanford Alpaca
            templates are used, as the released model was trained.
        preprocess: Sizes and constants of the media inputs; ImageBind's when None.
        system_prompt: Put before conversations that have no system message.
        tool_ranker: Sorts tools by how well they fit; None lists them as they are given.
    """

    def __init__(
        self,
        tokenizer: Any,
        preprocess: PreprocessConfig | None = None,
        *,
        system_prompt: str | None = None,
        tool_ranker: ToolRanker | None = None,
    ) -> None:
        self.tool_ranker = tool_ranker
        self.tokenizer = tokenizer
        self.preprocess = preprocess or PreprocessConfig()
        self.system_prompt = system_prompt

    def __call__(
        self,
        text: Texts | None = None,
        media: Sequence[Sequence[Medium]] | Sequence[Medium] | None = None,
        *,
        template: bool = True,
        policy: MediaPolicy | None = None,
        padding_side: str = "left",
    ) -> ModelInputs:
        """Prepare a batch.

        Args:
            text: One question, several, one conversation (a list of messages) or several.
                Content of a message is text or a list of blocks; media blocks count for the row.
            media: The media of each row, as items or blocks; a flat list for a single row.
            template: False passes texts to the tokenizer as they are.
            policy: What media blocks may open; by default only what they carry.
            padding_side: "left" to generate, "right" to train.

        Returns:
            `input_ids` and `attention_mask` (B, T) if there is text, `media` if there are media.

        Raises:
            MediaError: A medium cannot be read or is not allowed.
            ConfigurationError: Rows of text and media differ in number, or no conversation.
        """
        if text is None and media is None:
            raise ConfigurationError("found neither text nor media; pass at least one")
        rows = None if text is None else _as_conversations(text)
        blocks = _as_media_rows(media, 1 if rows is None else len(rows))
        data: dict[str, Any] = {}
        if rows is not None:
            blocks = _with_inline_media(rows, blocks)
            encoded = [self.encode(_text_only(row), template=template) for row in rows]
            data = self.pad(encoded, padding_side=padding_side)
        if media is not None or any(blocks):
            items = [[_as_item(medium, policy) for medium in row] for row in blocks]
            data["media"] = MediaBatch.collate(items, self.preprocess)
        return ModelInputs(data)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        template: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
        chat_template: str | None = None,
        opening: bool = True,
    ) -> list[int]:
        """Token ids of one conversation, up to where the answer begins.

        Args:
            messages: See `encode_conversation`, like the next ones.
            template: False joins the contents without a chat template.
            tools: See there.
            chat_template: See there.
            opening: See there.
        """
        if not template:
            text = "".join(message["content"] for message in messages)
            ids: list[int] = self.tokenizer(text)["input_ids"]
            return ids
        if self.system_prompt and messages and messages[0].get("role") != "system":
            messages = [{"role": "system", "content": self.system_prompt}, *messages]
        return encode_conversation(
            self.tokenizer, messages, tools=tools, chat_template=chat_template, opening=opening
        )

    def arrange(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """List tools for `encode`: by how well they fit, where the model has a ranking."""
        if self.tool_ranker is None or not tools:
            return list(tools)
        return self.tool_ranker.arrange(messages, tools)

    def pad(
        self, rows: Sequence[Sequence[int]], *, padding_side: str = "left"
    ) -> dict[str, torch.Tensor]:
        """Pad token ids to one length: `input_ids` and `attention_mask`, (B, T) int64."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            place = slice(width - len(row), None) if padding_side == "left" else slice(len(row))
            ids[index, place] = torch.tensor(row, dtype=torch.long)
            mask[index, place] = 1
        return {"input_ids": ids, "attention_mask": mask}

    @property
    def pad_token_id(self) -> int:
        """The token that fills rows; the end token where the tokenizer has none for it."""
        for index in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if index is not None:
                return int(index)
        return 0

    def decode(self, ids: Any, *, skip_special_tokens: bool = True) -> str:
        """Text of token ids (T,); where special tokens are skipped, without the note before it."""
        ids = without_note(ids, self.tokenizer) if skip_special_tokens else ids
        text: str = self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def batch_decode(self, ids: Any, *, skip_special_tokens: bool = True) -> list[str]:
        """Texts of token ids (B, T)."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `preprocessor_config.json`, the tokenizer's files and the ranking of tools."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        if self.tool_ranker is not None:
            self.tool_ranker.save(folder / RANKER_FOLDER)
        settings = {
            "processor_class": type(self).__name__,
            "preprocess": self.preprocess.to_dict(),
            "system_prompt": self.system_prompt,
        }
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Self:
        """Load from a model's folder or hub id.

        Raises:
            CheckpointError: A file is missing or cannot be read.
        """
        folder = fetch_folder(source, **{k: v for k, v in options.items() if k in HUB_OPTIONS})
        try:
            settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            preprocess = PreprocessConfig.from_dict(settings["preprocess"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{folder / CONFIG_FILE} cannot be read ({error}); expected what "
                "ImageBindLLMProcessor.save_pretrained or `ibllm convert` writes"
            ) from error
        tools = folder / RANKER_FOLDER
        return cls(
            load_tokenizer(folder),
            preprocess,
            system_prompt=settings.get("system_prompt"),
            tool_ranker=ToolRanker.load(tools) if tools.is_dir() else None,
        )


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer: `tokenizer.json`, else whatever transformers finds.

    Raises:
        CheckpointError: There is none.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} has no tokenizer that can be read ({error})") from error


def _as_conversations(text: Texts) -> list[list[Message]]:
    """Bring every accepted form to one list of messages per row."""
    if isinstance(text, str):
        return [[{"role": "user", "content": text}]]
    entries: list[Any] = list(text)
    if not entries:
        raise ConfigurationError("found no text; expected a question or a list of messages")
    if all(isinstance(entry, Mapping) for entry in entries):
        return [entries]
    return [
        [{"role": "user", "content": entry}] if isinstance(entry, str) else list(entry)
        for entry in entries
    ]


def _as_media_rows(media: Any, n_rows: int) -> list[list[Medium]]:
    """Bring media to one list per row."""
    if media is None:
        return [[] for _ in range(n_rows)]
    is_flat = bool(media) and not any(_is_row(entry) for entry in media)
    rows = [list(media)] if is_flat else [list(row) for row in media]
    if len(rows) != n_rows and not (n_rows == 1 and is_flat):
        raise ConfigurationError(
            f"found media for {len(rows)} rows and text for {n_rows}; pass one list of media per "
            "row, an empty one for a row without"
        )
    return rows


def _is_row(entry: Any) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, (str, bytes, Mapping))


def _with_inline_media(
    rows: Sequence[Sequence[Message]], media: Sequence[Sequence[Medium]]
) -> list[list[Medium]]:
    """Add the media blocks inside messages to those given beside them."""
    from ibllm_tools.media import is_media

    found = []
    for row, given in zip(rows, media, strict=True):
        contents = [message.get("content") for message in row]
        inline = [
            block
            for content in contents
            if isinstance(content, (list, tuple))
            for block in content
            if is_media(block)
        ]
        found.append([*given, *inline])
    return found


def _text_only(messages: Sequence[Message]) -> list[Message]:
    """Replace lists of blocks by their text, one block per line."""
    return [
        message
        if not isinstance(message.get("content"), (list, tuple))
        else {**message, "content": "\n".join(_texts(message["content"]))}
        for message in messages
    ]


def _texts(blocks: Sequence[Any]) -> list[str]:
    from ibllm_tools.media import is_media

    texts = []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
        elif not is_media(block):
            if block.get("type") != "text":
                raise ConfigurationError(
                    f"found a block of type {block.get('type')!r}; expected text or a medium"
                )
            texts.append(str(block.get("text", "")))
    return texts


def _as_item(medium: Medium, policy: MediaPolicy | None) -> Item:
    """Read a block; an item is taken as it is."""
    if not isinstance(medium, Mapping):
        return medium
    from ibllm_tools.media import MediaPolicy, load

    item: Item = load(medium, policy or MediaPolicy())
    return item
