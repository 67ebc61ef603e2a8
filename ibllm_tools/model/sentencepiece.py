"""LLaMA's SentencePiece tokenizer file as a fast tokenizer, without protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPACE = "\u2581"
_PROBES = ("Hello world", " two  spaces", "line\nbreak", "naïve 日本 😀", "12345: ###", "")


def read_sentencepiece(path: str | Path) -> PreTrainedTokenizerFast:
    """Read a BPE model with byte fallback, as LLaMA's `tokenizer.model`.

    The first token is added before a text, the end token is not, as in the released code.

    Raises:
        CheckpointError: The file cannot be read, or is of a kind that is encoded otherwise.
    """
    from sentencepiece import SentencePieceProcessor
    from transformers import PreTrainedTokenizerFast

    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(Path(path).read_bytes())
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no SentencePiece model ({error})") from error
    names = {name: model.id_to_piece(_id_of(model, name, path)) for name in ("bos", "eos", "unk")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_backend(model),
        bos_token=names["bos"],
        eos_token=names["eos"],
        unk_token=names["unk"],
        clean_up_tokenization_spaces=False,
    )
    for probe in _PROBES:
        if tokenizer(probe, add_special_tokens=False)["input_ids"] != model.encode(probe):
            raise CheckpointError(
                f"{path} encodes {probe!r} in a way that only LLaMA's kind of SentencePiece model "
                "(BPE, byte fallback, no normalisation) does not; use its tokenizer.json"
            )
    return tokenizer


def _id_of(model: Any, name: str, path: str | Path) -> int:
    index: int = getattr(model, f"{name}_id")()
    if index < 0:
        raise CheckpointError(f"{path} has no {name} token; expected a LLaMA tokenizer")
    return index


def _backend(model: Any) -> Any:
    """Build the fast tokenizer: pieces, merges ordered by score, spaces as a character."""
    from tokenizers import Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE

    size = model.get_piece_size()
    vocab = {model.id_to_piece(index): index for index in range(size)}
    unknown = model.id_to_piece(model.unk_id())
    merges = _merges(model, vocab)
    backend = Tokenizer(BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    first = model.id_to_piece(model.bos_id())
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A",
        pair=f"{first} $A {first} $B",
        special_tokens=[(first, model.bos_id())],
    )
    return backend


def _merges(model: Any, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two pieces; better scores first, as SentencePiece merges."""
    found = []
    for piece, index in vocab.items():
        if model.is_byte(index) or model.is_control(index) or model.is_unknown(index):
            continue
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        pairs = [(left, right) for left, right in splits if left in vocab and right in vocab]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        found += [(-model.get_score(index), index, pair) for pair in pairs]
    found.sort(key=lambda entry: entry[:2])
    return [pair for _, _, pair in found]
