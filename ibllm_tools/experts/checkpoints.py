"""Where an expert's weights are, and how a failure to load them is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ibllm_tools.checkpoints import CONFIG_NAME, find_folder, no_progress_bar, weight_files
from ibllm_tools.errors import CheckpointError, IbllmError

POCKET_DETECTOR, POCKET_RECOGNIZER = SHIPPED = ("pocket_detector", "pocket_recognizer")


def shipped_folder(name: str) -> Path:
    """Return where one of the experts in `SHIPPED` lies, be it there or not."""
    return Path(__file__).parents[1] / name


def is_shipped(name: str) -> bool:
    """Tell whether an expert of this name came with the package."""
    return name in SHIPPED and (shipped_folder(name) / CONFIG_NAME).is_file()


def find_source(checkpoint: str) -> str:
    """Return the resolved local folder of a transformers checkpoint, or its hub id.

    Raises:
        CheckpointError: It looks like a path, and nothing is there, or a shipped one is gone.
    """
    if checkpoint in SHIPPED:
        if not is_shipped(checkpoint):
            raise CheckpointError(
                f"the package has no weights in {shipped_folder(checkpoint)}; reinstall "
                "ibllm-tools, or name a folder or a hub id"
            )
        return str(shipped_folder(checkpoint).resolve())
    if checkpoint == "pocket":
        raise CheckpointError('"pocket" is a chat model and no expert; name a folder or a hub id')
    folder = find_folder(checkpoint)
    return checkpoint if folder is None else str(folder.resolve())


def find_file(checkpoint: str, kind: str) -> str:
    """Return the resolved path of a weight file.

    Raises:
        CheckpointError: There is no such file.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such file; expected {kind}. Nothing is downloaded here: fetch "
            "it first, and check the path"
        )
    return str(path.resolve())


def stored_bytes(source: str) -> int:
    """Return the size of a local checkpoint's weights; 0 for a hub id."""
    path = Path(source)
    if path.is_file():
        return path.stat().st_size
    return sum(file.n_bytes for file in weight_files(path)) if path.is_dir() else 0


def module_bytes(module: Any) -> int:
    """Return the bytes that the parameters and buffers of a torch module hold."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(int(t.numel()) * int(t.element_size()) for t in tensors.values())


def load_whole(family: Any, source: str, **options: Any) -> Any:
    """Load a transformers model whose weights are all there, from safetensors, without its code.

    Raises:
        CheckpointError: Weights are missing; transformers alone would fill in random ones.
    """
    # A hint on the speed of a CUDA kernel, which no user of a finished checkpoint can follow.
    warnings.filterwarnings("ignore", message="You'd better set embed_dim", category=UserWarning)
    model, report = family.from_pretrained(
        source,
        use_safetensors=True,  # pickles are refused
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )
    parameters = {name for name, _ in model.named_parameters()}
    missing = sorted(parameters & set(report["missing_keys"]))
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} weights of a {type(model).__name__}, such as "
            f"{missing[0]}; expected all: fetch it again, or name a checkpoint of that kind"
        )
    return model


@contextmanager
def loading(checkpoint: str, expected: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads into a `CheckpointError`, and draw no bars."""
    try:
        with no_progress_bar():
            yield
    except IbllmError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{checkpoint} cannot be loaded as {expected} "
            f"({type(error).__name__}: {reason[0][:200] if reason else 'no reason given'}); check "
            "the name, download it first where there is no network, or name another checkpoint"
        ) from error
    except Exception as error:  # safetensors and pickle have errors of their own roots
        raise CheckpointError(
            f"{checkpoint} cannot be loaded as {expected} ({type(error).__name__}); its files are "
            "damaged: fetch it again"
        ) from error
