"""Items to tensors, one module per modality, and whole batches of them."""

from __future__ import annotations

from ibllm_tools.preprocess.audio import audio_to_clips, log_mel, mel_images, resample
from ibllm_tools.preprocess.batch import MediaBatch, preprocess
from ibllm_tools.preprocess.config import PreprocessConfig
from ibllm_tools.preprocess.image import (
    image_to_pixels,
    map_to_pixels,
    normalize_pixels,
    pixels_to_views,
    stretch_disparity,
)
from ibllm_tools.preprocess.imu import imu_to_signal
from ibllm_tools.preprocess.points import (
    farthest_points,
    normalize_points,
    points_to_cloud,
    resample_points,
)
from ibllm_tools.preprocess.text import ClipTokenizer, clip_tokenizer, tokenize
from ibllm_tools.preprocess.video import frames_to_crops, video_spans

__all__ = [
    "ClipTokenizer",
    "MediaBatch",
    "PreprocessConfig",
    "audio_to_clips",
    "clip_tokenizer",
    "farthest_points",
    "frames_to_crops",
    "image_to_pixels",
    "imu_to_signal",
    "log_mel",
    "map_to_pixels",
    "mel_images",
    "normalize_pixels",
    "normalize_points",
    "pixels_to_views",
    "points_to_cloud",
    "preprocess",
    "resample",
    "resample_points",
    "stretch_disparity",
    "tokenize",
    "video_spans",
]
