"""Sound to log-mel images: resampling, clips, Kaldi filter bank.

Knows waveforms as tensors, not files. Whole batches go through `resample` and `log_mel`, which
training uses as well.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.errors import MediaError
from ibllm_tools.preprocess.config import PreprocessConfig

FRAME_S = 0.025
SHIFT_S = 0.010
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
MAX_RATE_HZ = 768_000
_LOBES = 6
_ROLLOFF = 0.99
_CHUNK = 1 << 16


def spread_clips(duration_s: float, clip_s: float, n_clips: int) -> list[tuple[Fraction, Fraction]]:
    """Spread `n_clips` clips of `clip_s` seconds evenly over a recording.

    The first clip begins at 0 and the last one ends with the recording. A recording shorter
    than a clip gives the same clip every time.

    Returns:
        Exact (start, end) of each clip in seconds.
    """
    last_start = Fraction(max(duration_s - clip_s, 0.0))
    step = last_start / max(n_clips - 1, 1)
    return [(step * i, step * i + Fraction(clip_s)) for i in range(n_clips)]


def resample(waveform: Tensor, rate_hz: int, new_rate_hz: int, span: slice | None = None) -> Tensor:
    """Change the sampling rate with a Hann-windowed sinc of six lobes.

    Only the filter taps that are not zero are kept, so that any two rates cost the same.

    Args:
        waveform: (..., S) float.
        rate_hz: Samples per second of `waveform`.
        new_rate_hz: Samples per second wanted.
        span: Range of output samples to compute; all of them by default.

    Returns:
        (..., S') float, where S' = ceil(S · new_rate_hz / rate_hz) without a span.

    Raises:
        MediaError: A rate is not within 1 to 768000.

    Source: Smith, "Digital Audio Resampling"; the filter is that of torchaudio's `resample`.
    """
    for rate in (rate_hz, new_rate_hz):
        if not 1 <= rate <= MAX_RATE_HZ:
            raise MediaError(f"sampling rate: found {rate} Hz, expected 1 to {MAX_RATE_HZ}")
    n_out = -(-waveform.shape[-1] * new_rate_hz // rate_hz)
    start, stop, _ = (span or slice(None)).indices(n_out)
    if rate_hz == new_rate_hz:
        return waveform[..., start:stop]
    divisor = math.gcd(rate_hz, new_rate_hz)
    old, new = rate_hz // divisor, new_rate_hz // divisor
    kernel = _sinc_kernel(old, new).to(waveform)  # (new, 2·reach + 1)
    reach = kernel.shape[1] // 2
    padded = F.pad(waveform, (reach, reach))
    pieces = []
    for first in range(start, stop, _CHUNK):
        n = torch.arange(first, min(first + _CHUNK, stop), device=waveform.device)
        windows = padded.unfold(-1, 2 * reach + 1, 1)[..., n * old // new, :]  # (..., n, taps)
        pieces.append(torch.einsum("...nt,nt->...n", windows, kernel[n % new]))
    return torch.cat(pieces, dim=-1) if pieces else waveform[..., :0]


@lru_cache(maxsize=8)
def _sinc_kernel(old: int, new: int) -> Tensor:
    """Filter taps of every phase: (new, 2·reach + 1), around input sample floor(n · old / new)."""
    cutoff = min(old, new) * _ROLLOFF
    reach = math.ceil(_LOBES * old / cutoff) + 1
    phase = torch.arange(new)[:, None]
    sample = phase * old // new + torch.arange(-reach, reach + 1)  # (new, taps)
    # Time from output to input sample in cycles of the cutoff. float32 on purpose: its rounding
    # is part of torchaudio's filter, and audible to the logarithm in silent recordings.
    t = (-phase.float() / new + sample.float() / old) * cutoff
    t = t.clamp(-_LOBES, _LOBES)
    window = torch.cos(t * math.pi / _LOBES / 2) ** 2
    t = t * math.pi
    sinc = torch.where(t == 0, torch.ones_like(t), t.sin() / t)
    return sinc * (window * (cutoff / old))


def log_mel(waveforms: Tensor, rate_hz: int = 16000, n_mels: int = 128) -> Tensor:
    """Kaldi log-mel filter bank of a batch of waveforms.

    Frames of 25 ms every 10 ms, each centred, pre-emphasised and Hann-windowed; mel triangles
    on the power spectrum between 20 Hz and half the rate; natural logarithm.

    Args:
        waveforms: (B, S) float32, at least one frame long.
        rate_hz: Samples per second.
        n_mels: Mel bins M.

    Returns:
        (B, M, T) float32, with T = 1 + (S - 25 ms) // 10 ms.

    Raises:
        MediaError: The waveforms are shorter than a frame.

    Source: Kaldi's `compute-fbank-feats`, with ImageBind's settings.
    """
    frame, shift = int(rate_hz * FRAME_S), int(rate_hz * SHIFT_S)
    if waveforms.shape[-1] < frame:
        raise MediaError(f"audio: found {waveforms.shape[-1]} samples, expected at least {frame}")
    frames = waveforms.unfold(-1, frame, shift)  # (B, T, frame)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = torch.hann_window(frame, periodic=False, dtype=frames.dtype, device=frames.device)
    frames = (frames - PREEMPHASIS * before) * window
    n_fft = 1 << (frame - 1).bit_length()
    power = torch.fft.rfft(frames, n=n_fft).abs().square()  # (B, T, n_fft/2 + 1)
    with torch.autocast(power.device.type, enabled=False):  # half precision loses quiet bins
        mel = power @ _mel_triangles(n_mels, n_fft, rate_hz).to(power)  # (B, T, M)
    loud: Tensor = mel.clamp_min(torch.finfo(torch.float32).eps)
    return loud.log().transpose(-1, -2)


@lru_cache(maxsize=8)
def _mel_triangles(n_mels: int, n_fft: int, rate_hz: int) -> Tensor:
    """Weight of each spectrum bin in each mel bin: (n_fft/2 + 1, n_mels)."""
    bounds_hz = torch.tensor([LOWEST_HZ, rate_hz / 2], dtype=torch.float64)
    low, high = (1127.0 * torch.log1p(bounds_hz / 700.0)).tolist()
    edges = torch.linspace(low, high, n_mels + 2, dtype=torch.float64)
    bins_hz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate_hz / n_fft
    mel = 1127.0 * torch.log1p(bins_hz / 700.0)[:, None]
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rising, falling).clamp_min(0.0)
    weights[-1] = 0.0  # Kaldi leaves out the bin at half the rate
    return weights.float()


def mel_images(waveforms: Tensor, config: PreprocessConfig) -> Tensor:
    """Turn a batch of clips into normalised log-mel images.

    Args:
        waveforms: (B, S) float32 at `config.audio_rate_hz`, mono, mean already removed.
        config: Sizes and statistics.

    Returns:
        (B, 1, M, T) float32 with M = audio_mels and T = audio_frames. Missing frames are zeros
        before normalisation, as in the reference; surplus frames are cut.
    """
    frame = int(config.audio_rate_hz * FRAME_S)
    missing = max(frame - waveforms.shape[-1], 0)
    mel = log_mel(F.pad(waveforms, (0, missing)), config.audio_rate_hz, config.audio_mels)
    mel = F.pad(mel, (0, config.audio_frames - mel.shape[-1]))  # a negative pad cuts
    return ((mel - config.audio_mean) / config.audio_std)[:, None]


def audio_to_clips(samples: Tensor, rate_hz: int, config: PreprocessConfig) -> Tensor:
    """Turn a recording into log-mel images of clips spread evenly over it.

    The mean over all channels is removed from each clip, then the first channel is used. Where
    clips overlap, a later clip sees the earlier removal, as in the reference.

    Args:
        samples: (C, S) float32 in [-1, 1].
        rate_hz: Samples per second; resampled to `config.audio_rate_hz`.
        config: Sizes and statistics.

    Returns:
        (K, 1, M, T) float32: `audio_clips` images of `audio_mels` bins by `audio_frames` frames.

    Raises:
        MediaError: There are no samples, or the rate is out of range.

    Source: ImageBind (Girdhar et al., 2023), audio preprocessing.
    """
    if samples.ndim != 2 or 0 in samples.shape:
        raise MediaError(
            f"audio: found samples of shape {tuple(samples.shape)}, expected (channels, samples)"
        )
    rate = config.audio_rate_hz
    total = -(-samples.shape[1] * rate // rate_hz)
    clips_s = spread_clips(total / rate, config.audio_clip_s, config.audio_clips)
    spans = [slice(int(start * rate), min(int(end * rate), total)) for start, end in clips_s]
    waveform = samples.new_zeros(samples.shape[0], total)
    for span in spans:
        waveform[:, span] = resample(samples, rate_hz, rate, span)
    clips = []
    for span in spans:
        waveform[:, span] -= waveform[:, span].mean()
        clips.append(waveform[0, span].clone())
    return torch.cat([mel_images(clip[None], config) for clip in clips])
