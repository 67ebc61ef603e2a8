"""The folder of an ImageBind-LLM: what lies where, read and written.

```
config.json            sizes and choices           llm/       the base LLM, as transformers saves it
adapter.safetensors    bind network, gates,        encoder/   config.json, one file per trunk
                       queries, deltas, norms      cache/     the visual cache
generation_config.json                             preprocessor_config.json, tokenizer files
```
Without `llm/` or `encoder/` the config names where they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from ibllm_tools.checkpoints import POCKET, POCKET_FOLDER
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.llm import DeltaLinear, without_deltas
from ibllm_tools.model.configuration import ImageBindLLMConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from ibllm_tools.cache import VisualCache
    from ibllm_tools.encoder import ImageBind

ADAPTER_FILE = "adapter.safetensors"
LLM_FOLDER, ENCODER_FOLDER, CACHE_FOLDER = "llm", "encoder", "cache"
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
SHOWN_KEYS = 8

Model = TypeVar("Model")


def load(cls: Any, source: str | Path, **options: Any) -> Any:
    """Load an `ImageBindLLM`; see its `from_pretrained`."""
    hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    folder = fetch_folder(source, **hub)
    config = _read_config(folder)
    llm = load_llm(_part(folder, LLM_FOLDER, config.base_llm, hub), **options)
    encoder = _open_encoder(folder, config, hub, llm)
    config.encoder_config = encoder.config if encoder else None
    with torch.device("meta"):
        model = cls(config, llm, encoder)
    _load_adapter(model, folder / ADAPTER_FILE, _base_adapter(folder, config, hub))
    config.base_adapter = None  # the model has all of it now
    if (folder / CACHE_FOLDER).is_dir():
        model._cache = lambda: _open_cache(folder / CACHE_FOLDER)
    if (folder / "generation_config.json").is_file():
        model.generation_config = type(llm.generation_config).from_pretrained(folder)
    model.name_or_path = config.name_or_path = str(source)
    return model.eval()


def fetch_folder(source: str | Path, **hub: Any) -> Path:
    """Find the local folder of "pocket", a path or a hub id, downloading the latter.

    Raises:
        CheckpointError: There is neither such a folder nor such a repository.
    """
    folder = POCKET_FOLDER if str(source) == POCKET else Path(source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), **hub))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{source} is neither a folder nor a repository of the Hugging Face hub that can be "
            f"reached ({type(error).__name__}); check the name, or download it first"
        ) from error


def load_llm(source: str | Path, **options: Any) -> PreTrainedModel:
    """Load a base LLM with stock transformers; float16 files become float32 on a CPU.

    Raises:
        CheckpointError: There is none, or its weights do not fit its config.
    """
    try:
        if options.get("dtype") is None:
            options["dtype"] = _default_dtype(source, options.get("device_map"))
        llm, report = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, **options
        )
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"the base LLM {source} cannot be loaded: {error}") from error
    _check_keys(str(source), report["missing_keys"], report["unexpected_keys"])
    model: PreTrainedModel = llm
    return model


def save(
    model: Any,
    folder: str | Path,
    *,
    adapter_only: bool = False,
    **options: Any,
) -> None:
    """Write an `ImageBindLLM`; see its `save_pretrained`."""
    folder = Path(folder)
    if model.is_merged:
        raise ConfigurationError(
            "the deltas were merged into the LLM, so it cannot be saved; load it again without "
            "merge()"
        )
    config = _named_config(model) if adapter_only else model.config
    _write_adapter(model, folder, config, model.adapter_state_dict())
    if adapter_only:
        return
    shards = {k: v for k, v in options.items() if k == "max_shard_size"}
    plain = without_deltas(model.llm.state_dict())
    model.llm.save_pretrained(folder / LLM_FOLDER, state_dict=plain, **shards)
    if model.encoder is not None:
        model.encoder.save_pretrained(folder / ENCODER_FOLDER)
    if model.cache is not None:
        model.cache.save(folder / CACHE_FOLDER)


def save_part(
    model: Any, folder: str | Path, state: Mapping[str, Tensor], base_adapter: str | None
) -> None:
    """Write a folder with some weights of the adapter, that `load` can open.

    Args:
        model: The `ImageBindLLM`.
        folder: Where to.
        state: The weights, by their names in the model.
        base_adapter: Folder or hub id of a model that has the adapter's other weights; None if
            `state` is all of it.

    Raises:
        ConfigurationError: LLM or encoder have no name.
    """
    config = _named_config(model)
    config.base_adapter = base_adapter
    _write_adapter(model, Path(folder), config, state)


def _write_adapter(
    model: Any, folder: Path, config: ImageBindLLMConfig, state: Mapping[str, Tensor]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    plain = {name: x.detach().cpu().contiguous() for name, x in state.items()}
    save_file(plain, folder / ADAPTER_FILE, metadata={"format": "pt"})
    model.generation_config.save_pretrained(folder)


def _read_config(folder: Path) -> ImageBindLLMConfig:
    """Read a model folder's config, and refuse the folder of another kind of model."""
    path = folder / "config.json"
    expected = "expected a folder as ImageBindLLM.save_pretrained or `ibllm convert` writes it"
    if not path.is_file():
        raise CheckpointError(f"found no config.json in {folder}; {expected}")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        found = settings.get("model_type")
        if found != ImageBindLLMConfig.model_type:
            raise CheckpointError(
                f"{folder} holds a model of type {found!r}; {expected}. To give a plain LLM "
                "senses, use ImageBindLLM.from_llm"
            )
        config: ImageBindLLMConfig = ImageBindLLMConfig.from_dict(settings)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} cannot be read ({error}); {expected}") from error
    return config


def _part(folder: Path, name: str, elsewhere: str | None, hub: dict[str, Any]) -> Path:
    """Find a part in the model's folder, or where the config says it is."""
    if (folder / name).is_dir():
        return folder / name
    if elsewhere is None:
        raise CheckpointError(
            f"{folder} has no {name}/ and its config.json does not name one; save the whole model, "
            f"or set base_{name} in config.json"
        )
    if (folder / elsewhere).is_dir():
        return folder / elsewhere
    return fetch_folder(elsewhere, **{k: v for k, v in hub.items() if k != "revision"})


def _open_encoder(
    folder: Path, config: ImageBindLLMConfig, hub: dict[str, Any], llm: PreTrainedModel
) -> ImageBind | None:
    """Open the encoder; its trunks are read at first use."""
    if not (folder / ENCODER_FOLDER).is_dir() and config.base_encoder is None:
        if config.encoder_config is not None:
            _part(folder, ENCODER_FOLDER, None, hub)
        return None
    from ibllm_tools.encoder import ImageBind

    place = _part(folder, ENCODER_FOLDER, config.base_encoder, hub)
    if (place / ENCODER_FOLDER).is_dir():
        place = place / ENCODER_FOLDER
    return ImageBind.from_pretrained(place, dtype=llm.dtype, device=llm.device)


def _open_cache(folder: Path) -> VisualCache:
    from ibllm_tools.cache import VisualCache

    return VisualCache.load(folder)


def _base_adapter(folder: Path, config: ImageBindLLMConfig, hub: dict[str, Any]) -> Path | None:
    """Find the adapter that fills in what a folder's own leaves out."""
    if config.base_adapter is None:
        return None
    near = folder / config.base_adapter
    if near.is_dir():
        return near / ADAPTER_FILE
    elsewhere = {k: v for k, v in hub.items() if k != "revision"}
    return fetch_folder(config.base_adapter, **elsewhere) / ADAPTER_FILE


def read_adapter(path: Path) -> dict[str, Tensor]:
    """Read an adapter's file.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"found no {path.name} in {path.parent}; expected the adapter's file")
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy or save it again") from error
    return state


def _load_adapter(model: Any, path: Path, base: Path | None = None) -> None:
    """Fill the adapter's weights, which have no memory yet, from their file."""
    state = read_adapter(path)
    if base is not None:
        state = {**read_adapter(base), **state}
    expected = model.adapter_state_dict()
    _check_keys(str(path), expected.keys() - state.keys(), state.keys() - expected.keys())
    _check_shapes(str(path), expected, state)
    homes = _homes(model)
    dtype = model.llm.dtype
    cast = {name: x.to(homes.get(name, model.llm.device), dtype) for name, x in state.items()}
    model.load_state_dict(cast, strict=False, assign=True)


def _homes(model: Any) -> dict[str, torch.device]:
    """The device of every adapter weight that lies beside a weight of the LLM."""
    homes = {}
    for prefix, module in model.named_modules():
        if isinstance(module, DeltaLinear):
            for name, _ in module.named_parameters(recurse=False):
                homes[f"{prefix}.{name}"] = module.weight.device
    for name, x in model.named_parameters():
        if x.device.type != "meta":
            homes[name] = x.device
    return homes


def _check_keys(source: str, missing: Any, unexpected: Any) -> None:
    found = [("missing", missing), ("unexpected", unexpected)]
    if problems := [f"{kind}: {_shorten(sorted(keys))}" for kind, keys in found if keys]:
        raise CheckpointError(
            f"{source} does not fit the config; {'; '.join(problems)}. Use the config.json that "
            "belongs to these weights"
        )


def _check_shapes(source: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{name} {list(found[name].shape)} instead of {list(x.shape)}"
        for name, x in expected.items()
        if found[name].shape != x.shape
    ]
    if wrong:
        raise CheckpointError(
            f"{source} does not fit the config: {_shorten(wrong)}. Use the config.json that "
            "belongs to these weights"
        )


def _shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return ", ".join(names[:SHOWN_KEYS]) + more


def _default_dtype(source: str | Path, device_map: Any) -> torch.dtype | str:
    """The dtype of the files; float32 for float16 files that stay on a CPU."""
    on_cpu = device_map in (None, "cpu") or str(device_map) == "cpu"
    stored = getattr(AutoConfig.from_pretrained(source), "dtype", None)
    return torch.float32 if on_cpu and stored in (torch.float16, "float16") else "auto"


def _named_config(model: Any) -> ImageBindLLMConfig:
    """The config, naming base LLM and encoder, for a save of the adapter only."""
    config: ImageBindLLMConfig = ImageBindLLMConfig.from_dict(model.config.to_dict())
    config.base_llm = config.base_llm or model.llm.config.name_or_path or None
    if config.base_llm is None:
        raise ConfigurationError(
            "the base LLM has no name; set model.config.base_llm to its folder or hub id"
        )
    if model.encoder is not None and config.base_encoder is None:
        raise ConfigurationError(
            "the encoder has no name; set model.config.base_encoder to the folder or hub id of a "
            "model that has it"
        )
    return config
