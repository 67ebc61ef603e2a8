"""The whole conversion: check all files first, then write part after part, the config last."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ibllm_tools.convert.adapter import adapter_part, read_adapter_config, write_adapter
from ibllm_tools.convert.encoder import check_encoder, encoder_config, read_encoder, write_encoder
from ibllm_tools.convert.files import read_json, read_weights
from ibllm_tools.convert.llama import MAX_SHARD_BYTES, LlamaFiles, read_config, write_llama
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model.loading import CACHE_FOLDER, ENCODER_FOLDER, LLM_FOLDER
from ibllm_tools.model.sentencepiece import read_sentencepiece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ibllm_tools.encoder import ImageBindConfig
    from ibllm_tools.model import ImageBindLLMConfig

DTYPES = ("float32", "float16", "bfloat16")
RELEASED_SAMPLING = {"temperature": 0.1, "top_p": 0.75, "max_new_tokens": 256}
CARD = """# ImageBind-LLM, converted by `ibllm convert`

Open it with `ChatImageBindLLM(model="THIS FOLDER")` or `ImageBindLLM.from_pretrained`.

Licences of the weights, which this folder does not change: ImageBind CC BY-NC-SA 4.0
(no commercial use); LLaMA by the agreement with Meta under which you have it; the adapter and
visual cache by the terms of OpenGVLab/LLaMA-Adapter; the 3D trunk by those of Point-Bind.
"""

PathLike = str | os.PathLike[str]


def convert(
    out: PathLike,
    *,
    llama: PathLike,
    adapter: PathLike,
    imagebind: PathLike | None = None,
    point: PathLike | None = None,
    knn: PathLike | None = None,
    tokenizer: PathLike | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    encoder_sizes: ImageBindConfig | PathLike | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Convert released files to a folder that `ImageBindLLM.from_pretrained` opens.

    All names and shapes are checked before anything is written.

    Args:
        out: The folder to write.
        llama: Folder with `params.json`, `consolidated.*.pth` and, there or one folder above,
            `tokenizer.model`.
        adapter: `7B.pth`, filtered or whole, with either form of the bridge.
        imagebind: `imagebind_huge.pth`. Without it the adapter's file must hold the encoder.
        point: A Point-Bind checkpoint, for a 3D trunk that `imagebind` lacks.
        knn: `knn.index`; it is used by default then.
        tokenizer: `tokenizer.model`, if it lies elsewhere.
        dtype: "float32", "float16" or "bfloat16"; None keeps each file's own.
        overwrite: Whether files of an existing model folder may be replaced.
        progress: Called with the name of every part that was written.
        encoder_sizes: For an encoder of other sizes than the released one: its config, or the
            JSON file of that.
        max_shard_bytes: Largest shard of the LLM.

    Returns:
        The folder.

    Raises:
        CheckpointError: A file is missing, unsafe or damaged, or keys do not fit; names them.
        ConfigurationError: Unknown dtype, or `out` is in use.
    """
    folder, cast, say = Path(out), _dtype(dtype), progress or (lambda _: None)
    _check_target(folder, overwrite=overwrite)
    files = LlamaFiles(Path(llama))
    text_config = read_config(files)
    words = _tokenizer(Path(llama), tokenizer, text_config.vocab_size)
    whole = read_weights(adapter)
    senses = read_encoder(Path(imagebind or adapter), None if point is None else Path(point))
    sizes = _encoder_sizes(encoder_sizes) or encoder_config(senses)
    check_encoder(senses, sizes, str(imagebind or adapter))
    own = adapter_part(whole, str(adapter))
    config = read_adapter_config(own, text_config, sizes, str(adapter))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)  # a half-written folder must not open
    if knn is not None:
        _write_cache(Path(knn), folder / CACHE_FOLDER, config)
        say(CACHE_FOLDER)
    write_encoder(senses, sizes, folder / ENCODER_FOLDER, cast)
    say(ENCODER_FOLDER)
    for part in write_llama(
        files, text_config, folder / LLM_FOLDER, dtype=cast, max_shard_bytes=max_shard_bytes
    ):
        say(part)
    write_adapter(own, config, folder, cast)
    say("adapter.safetensors")
    _write_small_files(folder, config, words)
    return folder


def _encoder_sizes(given: ImageBindConfig | PathLike | None) -> ImageBindConfig | None:
    from ibllm_tools.encoder import ImageBindConfig

    if given is None or isinstance(given, ImageBindConfig):
        return given
    config: ImageBindConfig = ImageBindConfig.from_dict(read_json(Path(given)))
    return config


def _dtype(name: str | None) -> torch.dtype | None:
    if name is None:
        return None
    if name not in DTYPES:
        raise ConfigurationError(f"unknown dtype {name!r}; use one of {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _check_target(folder: Path, *, overwrite: bool) -> None:
    if folder.is_file():
        raise ConfigurationError(f"{folder} is a file; name a folder to write")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ConfigurationError(
            f"{folder} is not empty; name another folder, or allow it with overwrite"
        )


def _tokenizer(llama: Path, given: PathLike | None, vocab_size: int) -> PreTrainedTokenizerFast:
    """Read the tokenizer beside the weights, or one folder above as Meta has it."""
    places = (
        [Path(given)] if given else [llama / "tokenizer.model", llama.parent / "tokenizer.model"]
    )
    for place in places:
        if place.is_file():
            tokenizer = read_sentencepiece(place)
            if len(tokenizer) > vocab_size:
                raise CheckpointError(
                    f"{place} has {len(tokenizer)} tokens, the LLaMA weights have {vocab_size}; "
                    f"use the tokenizer that belongs to them"
                )
            return tokenizer
    raise CheckpointError(
        f"found no {' or '.join(map(str, places))}; name LLaMA's tokenizer.model with tokenizer"
    )


def _write_cache(path: Path, folder: Path, config: ImageBindLLMConfig) -> None:
    from ibllm_tools.cache import VisualCache

    cache = VisualCache.from_faiss(path)
    if cache.dim != config.joint_dim:
        raise CheckpointError(
            f"{path} holds vectors of width {cache.dim}, the encoder's have {config.joint_dim}; "
            f"use the index that belongs to the encoder"
        )
    cache.save(folder)
    config.use_cache_by_default = True


def _write_small_files(folder: Path, config: Any, words: Any) -> None:
    from transformers import GenerationConfig

    from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

    llama = config.text_config
    ends = {"bos_token_id": llama.bos_token_id, "eos_token_id": llama.eos_token_id}
    sampling = GenerationConfig(
        do_sample=True, **RELEASED_SAMPLING, **ends, pad_token_id=llama.pad_token_id
    )
    sampling.save_pretrained(folder)
    ImageBindLLMProcessor(words, _preprocess_config(config.encoder_config)).save_pretrained(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    config.architectures = [ImageBindLLM.__name__]
    config.save_pretrained(folder)


def _preprocess_config(sizes: ImageBindConfig) -> Any:
    """Preprocessing for an encoder of these sizes; ImageBind's constants."""
    from ibllm_tools.preprocess import PreprocessConfig

    changes: dict[str, Any] = {}
    if sizes.vision:
        changes["image_px"] = sizes.vision.image_px
    if sizes.depth:
        changes["depth_px"] = sizes.depth.image_px
    if sizes.thermal:
        changes["thermal_px"] = sizes.thermal.image_px
    if sizes.imu:
        changes["imu_samples"] = sizes.imu.n_samples
    if sizes.audio:
        changes |= {"audio_mels": sizes.audio.n_mels, "audio_frames": sizes.audio.n_frames}
    return PreprocessConfig.from_dict({**PreprocessConfig().to_dict(), **changes})
