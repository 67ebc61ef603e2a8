"""`StageConfig`: everything that decides a training run; read from YAML, saved with the weights."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from ibllm_tools.errors import ConfigurationError, MissingExtraError
from ibllm_tools.media import Modality
from ibllm_tools.model.modeling import Stage

RECIPE_FILE = "recipe.yaml"
REFERENCE_BATCH = 256
FREE_TO_CHANGE = frozenset(
    {
        "out",
        "save",
        "save_every",
        "keep",
        "log_every",
        "report_to",
        "workers",
        "activation_checkpointing",
    }
)
"""Settings that do not decide the weights; a run may be resumed with others."""

_STRICT = ConfigDict(extra="forbid")
_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(config=_STRICT, frozen=True)
class DataConfig:
    """One set of training rows: a feature store, or a data file whose media are encoded on the way.

    Attributes:
        features: Folder of a feature store, as `ibllm embed --out` writes it.
        data: A data file or folder, as `ibllm_tools.data.sources.open_source` takes it.
        share: How often its rows are drawn, relative to the other sets. Give it to all sets or
            to none; without it every row of every set is drawn equally often.
        format: Format of `data`; found from the file when None.
        media_root: The folder that the media of `data` must lie below; the file's own when None.
    """

    features: str | None = None
    data: str | None = None
    share: _Share | None = None
    format: str | None = None
    media_root: str | None = None

    def __post_init__(self) -> None:
        """Refuse a set of both kinds or none.

        Raises:
            ConfigurationError: Not exactly one of `features` and `data`.
        """
        if (self.features is None) == (self.data is None):
            raise ConfigurationError(
                f"a set has features={self.features!r} and data={self.data!r}; give one of them"
            )

    @property
    def name(self) -> str:
        """Where the rows come from."""
        return str(self.features or self.data)


@dataclass(config=_STRICT, frozen=True)
class StageConfig:
    """All settings of one stage.

    Attributes:
        stage: "bind" or "instruct".
        model: Where to start: a folder or hub id of an ImageBind-LLM, "pocket", or a plain causal
            LM, which is given untrained senses.
        encoder: For a plain LM: the folder of an encoder, or of a model that has one.
        out: The folder to write.
        sets: What to learn from.
        preset: Name of the preset that the settings began with; for the record.
        steps: Optimizer steps; from `epochs` when None.
        epochs: Passes over the rows, if `steps` is None.
        batch: Rows per process and forward pass.
        accumulate: Forward passes per optimizer step.
        lr: Peak learning rate.
        lr_per_256: In place of `lr`: the rate for 256 rows per step, scaled linearly to the
            rows that there are, as the released code does.
        min_lr: Where the schedule ends.
        warmup: Steps of linear warm-up; below 1 a share of all steps.
        schedule: "cosine" (half a period), "linear" or "constant", after the warm-up.
        weight_decay: Of matrices, gates and queries; biases and norms have none.
        beta1, beta2: Of AdamW.
        optimizer: A name of transformers' `TrainingArguments.optim`.
        clip: Largest gradient norm; 0 for no limit.
        gate_lr_scale: Factor on the learning rate of the gates.
        max_tokens: Longest row.
        too_long: What happens to longer rows: "cut" or "drop". Both are counted.
        text_only: What rows without media get: "none" (the bare LLM) or "zero_image" (the
            features of an all-zero image, as in the paper); kept in the model's config.
        modalities: Rows with other media are left out and counted. The paper trains on images
            alone.
        tune_bind: Whether "instruct" trains bind network, gates and queries as well.
        lora_rank: Rank of the low-rank products that "instruct" adds.
        injected_layers: For a plain LM: how many of its last layers are injected; None is all.
        open_gates: For a plain LM: where its gates start; the paper's are closed (0).
        precision: "bf16" (autocast; weights that are trained stay float32), "fp32", or "auto"
            (bf16 where a GPU has it).
        activation_checkpointing: Compute activations again in the backward pass, to save memory.
        save_every: Steps between checkpoints.
        keep: How many checkpoints are kept.
        save: "whole" (with LLM and encoder) or "adapter" (which names them), at the end.
        log_every: Steps between log lines.
        report_to: Trackers of transformers, such as "tensorboard".
        workers: Processes per process that prepare rows.
        device: "auto" or "cpu".
        seed: Of the order of rows and of new weights.
    """

    stage: Stage
    model: str
    out: str
    encoder: str | None = None
    sets: tuple[DataConfig, ...] = ()
    preset: str | None = None
    steps: _Count | None = None
    epochs: _Share = 1.0
    batch: _Count = 8
    accumulate: _Count = 1
    lr: _Rate | None = None
    lr_per_256: _Rate | None = None
    min_lr: _Rate = 0.0
    warmup: _Rate = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: _Rate = 0.05
    beta1: _Rate = 0.9
    beta2: _Rate = 0.95
    optimizer: str = "adamw_torch"
    clip: _Rate = 1.0
    gate_lr_scale: _Share = 1.0
    max_tokens: _Count = 512
    too_long: Literal["cut", "drop"] = "cut"
    text_only: Literal["none", "zero_image"] = "none"
    modalities: tuple[Modality, ...] = ("image",)
    tune_bind: bool = False
    lora_rank: _Count = 16
    injected_layers: _Count | None = None
    open_gates: float = 0.0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    activation_checkpointing: bool = False
    save_every: _Count = 500
    keep: _Count = 2
    save: Literal["whole", "adapter"] = "whole"
    log_every: _Count = 10
    report_to: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work together.

        Raises:
            ConfigurationError: No data, no or two learning rates, or shares for some sets only.
        """
        if not self.sets:
            raise ConfigurationError("found no training data; give --features STORE or --data FILE")
        if (self.lr is None) == (self.lr_per_256 is None):
            raise ConfigurationError(
                f"found lr={self.lr} and lr_per_256={self.lr_per_256}; give one of them, or a "
                "--preset"
            )
        shares = [part.share is not None for part in self.sets]
        if any(shares) and not all(shares):
            without = ", ".join(part.name for part in self.sets if part.share is None)
            raise ConfigurationError(f"{without}: has no share; give one to all sets or to none")

    def peak_lr(self, rows_per_step: int) -> float:
        """The learning rate after the warm-up, for this many rows per optimizer step."""
        if self.lr is not None:
            return self.lr
        assert self.lr_per_256 is not None
        return self.lr_per_256 * rows_per_step / REFERENCE_BATCH

    def warmup_steps(self, steps: int) -> int:
        """Steps of linear warm-up of a run of `steps`."""
        return round(self.warmup * steps if self.warmup < 1 else self.warmup)

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that YAML can hold; empty ones of a set are left out."""
        values = dataclasses.asdict(self)
        values["sets"] = [
            {name: value for name, value in part.items() if value is not None}
            for part in values["sets"]
        ]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def save_yaml(self, folder: str | Path) -> Path:
        """Write `recipe.yaml` into a folder."""
        path = Path(folder) / RECIPE_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        text = _yaml().safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
        return path


def make_config(values: Mapping[str, Any], where: str = "settings") -> StageConfig:
    """Build a config from plain values.

    Args:
        values: Fields of `StageConfig`; sets as mappings.
        where: Named in errors.

    Raises:
        ConfigurationError: An unknown or missing name, or a value that does not fit.
    """
    known = [field.name for field in dataclasses.fields(StageConfig)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
            raise ConfigurationError(f"{where}: found the setting {name!r}{hint}")
    try:
        return StageConfig(**values)
    except ValidationError as error:
        problems = "; ".join(map(_describe, error.errors()))
        raise ConfigurationError(f"{where}: {problems}") from error


def _describe(problem: Any) -> str:
    """Say what is wrong with one setting, or with a recipe as a whole."""
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    found = "" if problem["type"] == "missing" else f" (found {problem['input']!r})"
    return f"{'.'.join(map(str, problem['loc']))}: {text}{found}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the settings of a YAML file.

    Raises:
        ConfigurationError: It cannot be read or is no mapping.
    """
    yaml = _yaml()
    try:
        values = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{path}: found {type(values).__name__}, expected settings such as `lr: 0.0001`"
        )
    return values


def load_config(folder: str | Path) -> StageConfig:
    """Read the config that lies beside saved weights."""
    path = Path(folder) / RECIPE_FILE
    return make_config(read_yaml(path), str(path))


def changed_settings(before: StageConfig, now: StageConfig) -> list[str]:
    """Name the settings that decide the weights and differ, as "name: before -> now"."""
    old, new = before.to_dict(), now.to_dict()
    return [
        f"{name}: {old[name]!r} -> {new[name]!r}"
        for name in old
        if name not in FREE_TO_CHANGE and old[name] != new[name]
    ]


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("pyyaml", "train") from error
    return yaml
