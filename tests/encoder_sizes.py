"""Configs of the reference encoders, from the sizes stored beside their numbers."""

from math import prod

import torch

from ibllm_tools.encoder import (
    AudioConfig,
    DepthConfig,
    ImageBindConfig,
    ImuConfig,
    PointConfig,
    TextConfig,
    ThermalConfig,
    VisionConfig,
)

KEPT_BY_RECIPE = ("mask", "log_logit_scale", "logit_scale", "num_batches_tracked")
HALF_RANGE = ("pos_embed", "cls_token", "cls_pos", "bias_k", "bias_v")


def imagebind_config(args, sizes=None, **more) -> ImageBindConfig:
    """Translate the reference constructor's arguments and the sizes patched into it."""
    sizes = sizes or {}

    def size(prefix, drop_path=0.0):
        names = {"width": "embed_dim", "n_layers": "num_blocks", "n_heads": "num_heads"}
        given = {k: args[f"{prefix}_{v}"] for k, v in names.items() if f"{prefix}_{v}" in args}
        return {**given, "drop_path": args.get(f"{prefix}_drop_path", drop_path)}

    _, n_frames, vision_px, _ = sizes.get("vision_img_size", [3, 2, 224, 224])
    return ImageBindConfig(
        joint_dim=args["out_embed_dim"],
        vision=VisionConfig(
            **size("vision"),
            image_px=vision_px,
            n_frames=n_frames,
            patch_px=args.get("kernel_size", [2, 14, 14])[1],
        ),
        text=TextConfig(
            **size("text"),
            vocab_size=sizes.get("text_vocab_size", 49408),
            n_context=sizes.get("text_context_length", 77),
        ),
        audio=AudioConfig(
            **size("audio", 0.1),
            n_mels=args.get("audio_num_mel_bins", 128),
            n_frames=args.get("audio_target_len", 204),
            patch_px=args.get("audio_kernel_size", 16),
            stride_px=args.get("audio_stride", 10),
        ),
        depth=DepthConfig(
            **size("depth"),
            image_px=sizes.get("depth_img_size", [224])[-1],
            patch_px=args.get("depth_kernel_size", 16),
        ),
        thermal=ThermalConfig(
            **size("thermal"),
            image_px=sizes.get("thermal_img_size", [224])[-1],
            patch_px=args.get("thermal_kernel_size", 16),
        ),
        imu=ImuConfig(**size("imu", 0.7), n_samples=sizes.get("imu_img_size", [2000])[-1]),
        **more,
    )


def pointbert_config(model, projection_dim=512, fps_start=0) -> PointConfig:
    """Translate PointBERT's own configuration."""
    return PointConfig(
        width=model["trans_dim"],
        n_layers=model["depth"],
        n_heads=model["num_heads"],
        drop_path=model["drop_path_rate"],
        projection_dim=projection_dim,
        fps_start=fps_start,
        n_groups=model["num_group"],
        group_size=model["group_size"],
        mlp_out=model["encoder_dims"],
    )


def i2pmae_config(model) -> PointConfig:
    """Translate I2P-MAE's own configuration."""
    return PointConfig(
        encoder="i2pmae",
        n_heads=model["num_heads"],
        projection_dim=model["projection_dim"],
        level_layers=model["encoder_depths"],
        level_widths=model["encoder_dims"],
        level_radius=model["local_radius"],
        level_group_sizes=model["group_sizes"],
        level_n_groups=model["num_groups"],
    )


def recipe_value(key: str, shape, seed: int) -> torch.Tensor:
    """Draw one weight by the recipe of the reference numbers."""
    generator = torch.Generator().manual_seed(seed)
    u = 2 * torch.rand(tuple(shape), generator=generator) - 1
    last = key.rpartition(".")[2]
    if last == "running_var":
        return 1 + 0.5 * u
    if last == "running_mean":
        return 0.1 * u
    if last in HALF_RANGE or key.endswith("token_embedding.weight"):
        return 0.5 * u
    if len(shape) == 1:
        return 1 + 0.2 * u if last == "weight" else 0.1 * u
    return u * (3 / prod(shape[1:])) ** 0.5


def recipe_weights(shapes, base_seed: int, wanted=lambda _: True):
    """Draw the weights of a model from the shapes of all its keys; fixed ones are left out."""
    return {
        key: recipe_value(key, shapes[key], base_seed + index)
        for index, key in enumerate(sorted(shapes))
        if wanted(key) and not key.endswith(KEPT_BY_RECIPE)
    }


def check_recipe(weights, checks) -> None:
    """Compare sums, first and last elements with the stored ones."""
    for key, (total, first, last) in checks.items():
        if key in weights:
            flat = weights[key].flatten()
            assert flat[0].item() == first
            assert flat[-1].item() == last
            torch.testing.assert_close(flat.double().sum().item(), total, rtol=1e-9, atol=1e-6)


def assert_near(actual, expected) -> None:
    """1e-4, or 1e-4 of the largest value: the tolerance suggested for float32 outputs."""
    tolerance = 1e-4 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
