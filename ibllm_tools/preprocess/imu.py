"""Motion recordings to a fixed number of samples."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.preprocess.config import PreprocessConfig


def imu_to_signal(signal: Tensor, config: PreprocessConfig) -> Tensor:
    """Stretch or shrink a recording to the samples that the IMU trunk expects.

    A recording says nothing about its rate, so all of it is taken as one window (5 s in
    ImageBind's training): longer ones are averaged down, shorter ones interpolated.

    Args:
        signal: (6, T) float, T at least 1: accelerometer, then gyroscope.
        config: Holds `imu_samples`.

    Returns:
        (6, imu_samples) float32.
    """
    signal = signal.float()
    if signal.shape[1] == config.imu_samples:
        return signal
    size = (signal.shape[0], config.imu_samples)
    return F.interpolate(signal[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
