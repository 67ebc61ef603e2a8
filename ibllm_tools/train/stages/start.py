"""Where a run starts: a model folder, or a plain LLM and an encoder; what of it is trained.

The encoder is taken out of the model for the time of training: it is frozen, works from outside
if at all, and need not be wrapped, sharded or saved.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ibllm_tools.encoder import ImageBind
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model import ImageBindLLM, ImageBindLLMConfig, ImageBindLLMProcessor
from ibllm_tools.model.loading import ENCODER_FOLDER, fetch_folder
from ibllm_tools.model.processing import CONFIG_FILE, load_tokenizer
from ibllm_tools.model.sensing import mixed_features, with_zero_images
from ibllm_tools.preprocess import MediaBatch, PreprocessConfig
from ibllm_tools.train.stages.config import StageConfig


@dataclass
class Start:
    """A model that is ready to be trained, without its encoder.

    Attributes:
        model: The model; `model.encoder` is None.
        processor: Its processor.
        encoder: Its encoder; None if the model takes features only.
        trainable: The weights that the stage trains, by name; float32.
        base_adapter: The folder that has the adapter's other weights; None if there is none.
        kept: The adapter's other weights, where no folder has them.
        folder: The model folder it came from; None for a plain LLM.
    """

    model: ImageBindLLM
    processor: ImageBindLLMProcessor
    encoder: ImageBind | None
    trainable: dict[str, nn.Parameter]
    base_adapter: str | None
    kept: dict[str, Tensor]
    folder: Path | None


def open_start(config: StageConfig) -> Start:
    """Load what a run starts from, and freeze all but what its stage trains.

    Raises:
        CheckpointError: A folder is missing or does not fit.
        ConfigurationError: A plain LLM without an encoder, or the other way round.
    """
    torch.manual_seed(config.seed)
    folder = fetch_folder(config.model)
    is_ours = _model_type(folder) == ImageBindLLMConfig.model_type
    dtype = torch.bfloat16 if uses_bf16(config) else torch.float32
    model, processor = (_from_folder if is_ours else _from_plain)(config, folder, dtype)
    _name_parts(model, folder if is_ours else None, config)
    encoder, model.encoder = model.encoder, None
    model.config.text_only = config.text_only
    trainable = choose_trainable(model, config)
    if is_ours:
        base = str(folder.resolve())
        return Start(model, processor, encoder, trainable, base, {}, folder)
    others = model.adapter_state_dict().items()
    kept = {name: x.clone() for name, x in others if name not in trainable}
    return Start(model, processor, encoder, trainable, None, kept, None)


def uses_bf16(config: StageConfig) -> bool:
    """Whether a run computes in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bf16"
    on_gpu = config.device == "auto" and torch.cuda.is_available()
    return on_gpu and torch.cuda.is_bf16_supported()


def choose_trainable(model: ImageBindLLM, config: StageConfig) -> dict[str, nn.Parameter]:
    """Freeze all weights but those of the stage, and widen these to float32."""
    if config.stage == "instruct":
        model.add_deltas(config.lora_rank)
    trainable = model.set_phase(config.stage)
    if config.stage == "instruct" and config.tune_bind:
        trainable = model.trainable_parameters("bind") | trainable
    for parameter in trainable.values():
        parameter.requires_grad_()
        parameter.data = parameter.data.float()
    return trainable


@torch.no_grad()
def zero_image_feature(encoder: ImageBind | None) -> Tensor:
    """The features that rows without media get in the paper: those of an all-zero image.

    Returns:
        (joint,) float32.

    Raises:
        ConfigurationError: There is no encoder, or it has no vision trunk.

    Source: the released ImageBind-LLM's training; equal to `text_only="zero_image"` in use.
    """
    if encoder is None:
        raise ConfigurationError(
            'text_only="zero_image" needs the encoder, and this model has none; give --encoder, '
            'or use text_only="none"'
        )
    batch = with_zero_images(MediaBatch(n_rows=1), encoder)
    return mixed_features(batch, encoder)[0].float().cpu()


def _model_type(folder: Path) -> str | None:
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected the folder of an ImageBind-LLM or of a "
            "causal LM of transformers"
        ) from error
    found = settings.get("model_type")
    return None if found is None else str(found)


def _from_folder(
    config: StageConfig, folder: Path, dtype: torch.dtype
) -> tuple[ImageBindLLM, ImageBindLLMProcessor]:
    if config.encoder is not None:
        raise ConfigurationError(
            f"{config.model} has an encoder of its own; leave --encoder out, or start from its "
            "base LLM"
        )
    model = ImageBindLLM.from_pretrained(folder, dtype=dtype)
    if model.encoder is not None:
        model.encoder.float()
    return model, ImageBindLLMProcessor.from_pretrained(folder)


def _from_plain(
    config: StageConfig, folder: Path, dtype: torch.dtype
) -> tuple[ImageBindLLM, ImageBindLLMProcessor]:
    if config.encoder is None:
        raise ConfigurationError(
            f"{config.model} is a plain LLM; give --encoder FOLDER (an encoder, or a model that "
            "has one, such as pocket)"
        )
    place, sizes = find_encoder(config.encoder)
    encoder = ImageBind.from_pretrained(place)
    is_local = Path(config.model).expanduser().is_dir()
    model = ImageBindLLM.from_llm(
        str(folder.resolve()) if is_local else config.model,
        encoder,
        llm_options={"dtype": dtype},
        n_injected_layers=config.injected_layers,
        base_encoder=str(place.resolve()),
    )
    with torch.no_grad():
        model.gates.fill_(config.open_gates)
    return model, ImageBindLLMProcessor(load_tokenizer(folder), sizes)


def find_encoder(source: str) -> tuple[Path, PreprocessConfig]:
    """Find an encoder's folder and its preprocessing, from that folder or a model's.

    Raises:
        CheckpointError: There is none.
    """
    folder = fetch_folder(source)
    place = folder / ENCODER_FOLDER if (folder / ENCODER_FOLDER).is_dir() else folder
    for path in (place / CONFIG_FILE, place.parent / CONFIG_FILE):
        if path.is_file():
            settings = json.loads(path.read_text(encoding="utf-8"))
            return place, PreprocessConfig.from_dict(settings.get("preprocess", settings))
    return place, PreprocessConfig()


def _name_parts(model: ImageBindLLM, folder: Path | None, config: StageConfig) -> None:
    """Name base LLM and encoder so that a checkpoint can be opened from anywhere."""
    settings: Any = model.config
    named = settings.base_llm
    is_near = named is not None and folder is not None and (folder / named).exists()
    if named is None or is_near or Path(named).exists():
        settings.base_llm = str(Path(model.llm.config.name_or_path).resolve())
    if model.encoder is None:
        return
    place = model.encoder._folder
    if place is None:
        raise ConfigurationError(f"{config.model}: its encoder has no folder; save it first")
    settings.base_encoder = str(place.resolve())
