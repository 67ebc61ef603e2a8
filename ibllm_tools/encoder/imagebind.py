"""ImageBind: modality → preprocessor → trunk → head → normalisation, one chain per trunk.

Source: Girdhar et al., 2023, "ImageBind: One Embedding Space To Bind Them All" (arXiv 2305.05665);
3D trunk: Guo et al., 2023, "Point-Bind & Point-LLM" (arXiv 2309.00615).
State-dict names equal those of the released checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from ibllm_tools.encoder.build import build_trunk
from ibllm_tools.encoder.configuration import TRUNKS, ImageBindConfig, trunk_of
from ibllm_tools.encoder.grouping import PointGroups
from ibllm_tools.encoder.storage import (
    CONFIG_FILE,
    check_fit,
    read_trunk,
    trunk_of_key,
    trunk_path,
    write_trunk,
)
from ibllm_tools.errors import CheckpointError, ConfigurationError

PARTS = (
    "modality_preprocessors",
    "modality_trunks",
    "modality_heads",
    "modality_postprocessors",
)
_SINGLE_NDIM = {"vision": 4, "text": 2, "audio": 4, "depth": 4, "thermal": 4, "imu": 3, "point": 3}


@dataclass(frozen=True)
class Stages:
    """What each step of an encoding gave; B rows of S clips each.

    Attributes:
        tokens: (B*S, T, C) after patching and positions; a point trunk's are its feature (B*S, C).
        trunk: (B*S, T, C) after the last block; a point trunk's are its projection (B*S, C').
        head: (B*S, joint) before normalisation.
        out: (B, joint) normalised, scaled, then averaged over clips.
    """

    tokens: Tensor
    trunk: Tensor
    head: Tensor
    out: Tensor


class ImageBind(nn.Module):
    """Trunks that map media to vectors of `config.joint_dim`.

    `ImageBind(config)` builds all trunks with fresh weights. `ImageBind.from_pretrained(folder)`
    builds a trunk, and reads its file, when its modality is first used.
    """

    _anchor: Tensor  # remembers device and dtype for trunks that are read later

    def __init__(self, config: ImageBindConfig, *, build: bool = True) -> None:
        """Make the trunks named in `config`, or none yet when `build` is false."""
        super().__init__()
        self.config = config
        for part in PARTS:
            self.add_module(part, nn.ModuleDict())
        self.register_module("point_trunk", None)
        self.register_buffer("_anchor", torch.empty(0, device="cpu"), persistent=False)
        self._folder: Path | None = None
        self._trainable = True
        self._lock = RLock()
        if build:
            for trunk in config.trunks:
                self._attach(trunk, build_trunk(trunk, config))

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> ImageBind:
        """Open a folder that `save_pretrained` or `ibllm convert` wrote, for inference.

        Weights are read per trunk, on first use, as `dtype` onto `device`.

        Raises:
            CheckpointError: The folder has no config that can be read.
        """
        folder = Path(folder)
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"found no {CONFIG_FILE} in {folder}; expected an encoder folder, "
                f"as `ibllm convert` writes it"
            )
        try:
            config = ImageBindConfig.from_pretrained(folder)
        except OSError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE} cannot be read ({error})") from error
        model = cls(config, build=False)
        model._folder = folder
        return model.to(device=device, dtype=dtype).requires_grad_(requires_grad=False)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write `config.json` and one safetensors file per trunk, cast to `dtype` if given.

        A trunk that was never used is copied as a file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        for trunk in self.config.trunks:
            if trunk in self.loaded or self._folder is None or dtype is not None:
                self.load(trunk)
                write_trunk(folder, trunk, self.trunk_state_dict(trunk), dtype)
            elif folder.resolve() != self._folder.resolve():
                shutil.copyfile(trunk_path(self._folder, trunk), trunk_path(folder, trunk))

    @property
    def loaded(self) -> list[str]:
        """The trunks whose weights are in memory."""
        heads: Any = self.modality_postprocessors
        return [trunk for trunk in TRUNKS if trunk in heads]

    def load(self, *trunks: str) -> None:
        """Read trunks now (all of the config without arguments); safe from several threads.

        Raises:
            ConfigurationError: The config has no such trunk.
            CheckpointError: The file is missing or does not fit.
        """
        for trunk in trunks or tuple(self.config.trunks):
            if trunk not in self.config.trunks:
                present = ", ".join(self.config.trunks) or "none"
                raise ConfigurationError(
                    f"this encoder has no {trunk} trunk; present are: {present}. "
                    f"Use one of these, or an encoder that has it"
                )
            if trunk in self.loaded:
                continue
            # Outside inference mode: weights made inside it could never be used in training.
            with self._lock, torch.inference_mode(mode=False):
                if trunk not in self.loaded:
                    self._attach(trunk, self._read(trunk))

    def encode(self, modality: str, x: Tensor | PointGroups) -> Tensor:
        """Map a batch of one modality to the joint space.

        Args:
            modality: image, video, text, audio, depth, thermal, imu or point.
            x: (B, ...) one item per row, or (B, S, ...) with S clips per row. Items are
                image (3, px, px), video (3, n_frames, px, px), text (T,), audio (1, mels, frames),
                depth and thermal (1, px, px), imu (channels, samples), point (N, 3).
                Clouds that were grouped before come as `PointGroups`.

        Returns:
            (B, joint): normalised, times the logit scale, averaged over clips and then not
            normalised again.

        Raises:
            ConfigurationError: The encoder has no trunk for it, or the shape does not fit.
            CheckpointError: The trunk's file is missing or does not fit.
        """
        return self.stages(modality, x).out

    def head(self, modality: str, x: Tensor | PointGroups) -> Tensor:
        """Like `encode`, before normalisation: (B, joint), averaged over clips."""
        return _mean_of_clips(self.stages(modality, x).head, _n_rows(x))

    def forward(self, inputs: Mapping[str, Tensor | PointGroups]) -> dict[str, Tensor]:
        """Encode a batch per modality."""
        return {modality: self.encode(modality, x) for modality, x in inputs.items()}

    def stages(self, modality: str, x: Tensor | PointGroups) -> Stages:
        """Encode and keep the results of all steps; arguments and errors as in `encode`.

        Inputs are moved to the weights' device and, where they are floating, cast.
        """
        trunk = trunk_of(modality)
        self.load(trunk)
        n_rows = _n_rows(x)
        weight = next(self._part("modality_heads", trunk).parameters())
        x = self._fold(modality, trunk, x) if isinstance(x, Tensor) else x
        x = x.to(weight.device)
        if trunk == "point":
            tokens, mixed = self.get_submodule("point_trunk")(x)
        elif isinstance(x, PointGroups):
            raise ConfigurationError(f"found groups of points as {modality}; use modality 'point'")
        else:
            x = x.to(weight.dtype) if x.is_floating_point() else x
            tokens = self._part("modality_preprocessors", trunk)(x)
            mixed = self._part("modality_trunks", trunk)(tokens)
        head: Tensor = self._part("modality_heads", trunk)(mixed, x)
        out: Tensor = self._part("modality_postprocessors", trunk)(head)
        return Stages(tokens, mixed, head, _mean_of_clips(out, n_rows))

    def trunk_state_dict(self, trunk: str) -> dict[str, Tensor]:
        """The weights of one loaded trunk, by their names in the whole model."""
        return {k: v for k, v in self.state_dict().items() if trunk_of_key(k) == trunk}

    def requires_grad_(self, requires_grad: bool = True) -> ImageBind:
        """Set whether weights train, those read later included; frozen ones go to eval mode."""
        self._trainable = requires_grad
        super().requires_grad_(requires_grad)
        return self if requires_grad else self.eval()

    def train(self, mode: bool = True) -> ImageBind:
        """Set training mode; a frozen encoder stays in eval mode inside a model that trains."""
        return super().train(mode and self._trainable)

    def _fold(self, modality: str, trunk: str, x: Tensor) -> Tensor:
        """Fold clips (B, S, ...) into rows (B*S, ...)."""
        single = _SINGLE_NDIM[trunk]
        if trunk == "vision" and (x.ndim == 6 or self._is_bare_clip(modality, x)):
            single = 5
        if x.ndim not in (single, single + 1):
            raise ConfigurationError(
                f"found {modality} of shape {tuple(x.shape)}, expected {single} axes "
                f"(one item per row) or {single + 1} (clips per row)"
            )
        return x if x.ndim == single else x.flatten(0, 1)

    def _is_bare_clip(self, modality: str, x: Tensor) -> bool:
        """Tell one clip per row (B, 3, T, H, W) from images per row (B, S, 3, H, W)."""
        if x.ndim != 5 or x.shape[1] != 3:
            return False
        return x.shape[2] != 3 or modality == "video"

    def _part(self, part: str, trunk: str) -> nn.Module:
        return self.get_submodule(f"{part}.{trunk}")

    def _attach(self, trunk: str, parts: Mapping[str, nn.Module]) -> None:
        """Add the modules of a trunk; the postprocessor comes last, as the sign of completeness."""
        for part, module in parts.items():
            module.train(self.training)
            if part == "point_trunk":
                self.point_trunk = module
            else:
                self.get_submodule(part).add_module(trunk, module)

    def _read(self, trunk: str) -> dict[str, nn.Module]:
        """Build a trunk without memory and give it the tensors of its file."""
        if self._folder is None:
            raise CheckpointError(
                f"the {trunk} trunk has no weights: this encoder was not opened from a folder"
            )
        tensors = read_trunk(self._folder, trunk)
        with torch.device("meta"):
            parts = build_trunk(trunk, self.config)
        prefixes = {
            part: "point_trunk." if part == "point_trunk" else f"{part}.{trunk}." for part in parts
        }
        expected = {
            prefixes[part] + key: value
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }
        check_fit(expected, tensors, str(trunk_path(self._folder, trunk)))
        for part, module in parts.items():
            prefix = prefixes[part]
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            module.load_state_dict(own, strict=False, assign=True)
            module.to(device=self._anchor.device, dtype=self._anchor.dtype)
            module.requires_grad_(self._trainable)
        return parts

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._lock = RLock()


def _mean_of_clips(vectors: Tensor, n_rows: int) -> Tensor:
    """Average (B*S, joint) over the clips of each row."""
    return vectors.view(n_rows, -1, vectors.shape[-1]).mean(1)


def _n_rows(x: Tensor | PointGroups) -> int:
    return x.xyz.shape[0] if isinstance(x, PointGroups) else x.shape[0]
