"""Sound to log-mel images: reference numbers, any rate, any length, whole batches."""

import math
import time

import numpy as np
import pytest
import torch
from conftest import stored_names

from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media, load
from ibllm_tools.preprocess import (
    PreprocessConfig,
    audio_to_clips,
    log_mel,
    mel_images,
    preprocess,
    resample,
)

CONFIG = PreprocessConfig()
STORED = "preprocess/audio.safetensors"
INFO = "preprocess/info.json"
HEAD, FILTERED = ".resampled_head", ".fbank_clip0_raw"
NAMES = stored_names(STORED)
RATES_HZ = sorted({int(n.split(".")[1]) for n in NAMES if n.startswith("resample.")})
OTHERS = [n for n in NAMES if n.startswith("resample.") or n.endswith((HEAD, FILTERED))]
RECORDINGS = sorted(set(NAMES) - set(OTHERS))


def recordings(suffix):
    """The recordings of which something with this suffix is stored."""
    return [name.removesuffix(suffix) for name in NAMES if name.endswith(suffix)] or ["any sound"]


def loaded(golden, name):
    return load(Media.from_path(golden.path(f"media/{name}")))


def tone(frequency_hz, rate_hz, seconds, channels=1):
    t = torch.arange(int(rate_hz * seconds)) / rate_hz
    return (0.5 * torch.sin(2 * math.pi * frequency_hz * t)).expand(channels, -1)


@pytest.mark.golden
@pytest.mark.parametrize("name", RECORDINGS or ["any sound"])
def test_recordings_equal_the_reference(golden, name):
    expected = golden.tensors(STORED)[name]
    n_clips, _, n_mels, n_frames = expected.shape
    start, end = golden.json(INFO)["audio"][name]["clip_start_end_seconds"][0]
    config = PreprocessConfig(
        audio_clips=n_clips, audio_mels=n_mels, audio_frames=n_frames, audio_clip_s=end - start
    )
    clips = preprocess(loaded(golden, name), config)
    torch.testing.assert_close(clips, expected, atol=1e-3, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("name", recordings(HEAD))
def test_resampled_recordings_equal_the_reference(golden, name):
    expected = golden.tensors(STORED)[name + HEAD]
    audio = loaded(golden, name)
    span = slice(0, expected.shape[1])
    found = resample(torch.from_numpy(audio.samples), audio.rate_hz, CONFIG.audio_rate_hz, span)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("rate_hz", RATES_HZ or [44100])
def test_the_resampler_equals_the_reference(golden, rate_hz):
    tensors = golden.tensors(STORED)
    found = resample(tensors[f"resample.{rate_hz}.in"], rate_hz, 16000)
    torch.testing.assert_close(found, tensors[f"resample.{rate_hz}.out_16000"], atol=1e-6, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("name", recordings(FILTERED))
def test_the_filter_bank_equals_the_reference(golden, name):
    expected = golden.tensors(STORED)[name + FILTERED]
    start, stop = golden.json(INFO)["audio"][name]["clip_sample_ranges_16k"][0]
    audio = loaded(golden, name)
    clip = resample(torch.from_numpy(audio.samples), audio.rate_hz, 16000, slice(start, stop))
    found = log_mel(clip[:1] - clip.mean(), n_mels=expected.shape[-2])
    n_frames = min(found.shape[-1], expected.shape[-1])
    torch.testing.assert_close(found[..., :n_frames], expected[..., :n_frames], atol=1e-2, rtol=0)
    assert (expected[..., n_frames:] == 0).all()


@pytest.mark.parametrize("rate_hz", [1000, 8000, 11025, 44100, 44101, 96000, 192000])
def test_a_tone_keeps_its_pitch_at_any_rate(rate_hz):
    found = resample(tone(200, rate_hz, 1.0), rate_hz, 16000)
    assert found.shape == (1, 16000)
    inner = slice(2000, 14000)
    torch.testing.assert_close(found[:, inner], tone(200, 16000, 1.0)[:, inner], atol=5e-3, rtol=0)


def test_a_span_is_a_part_of_the_whole():
    wave = torch.randn(2, 30000, generator=torch.Generator().manual_seed(0))
    whole = resample(wave, 22050, 16000)
    torch.testing.assert_close(resample(wave, 22050, 16000, slice(500, 9000)), whole[:, 500:9000])


def test_a_batch_of_waveforms_equals_each_alone():
    waves = torch.randn(5, 32000, generator=torch.Generator().manual_seed(0))
    together = mel_images(waves, CONFIG)
    assert together.shape == (5, 1, 128, 204)
    alone = torch.cat([mel_images(wave[None], CONFIG) for wave in waves])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_autocast_leaves_the_filter_bank_alone():
    waves = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    expected = log_mel(waves)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(waves), expected)


def test_a_higher_tone_lies_in_a_higher_mel_bin():
    loudest = [int(log_mel(tone(f, 16000, 1.0)).mean(-1).argmax()) for f in (200, 800, 3200)]
    assert loudest == sorted(loudest)
    assert len(set(loudest)) == 3


@pytest.mark.parametrize("seconds", [1 / 16000, 0.01, 0.3, 2.0, 7.5])
def test_any_length_gives_three_clips(seconds):
    n = max(1, int(16000 * seconds))
    clips = audio_to_clips(torch.full((1, n), 0.25), 16000, CONFIG)
    assert clips.shape == (3, 1, 128, 204)
    assert clips.isfinite().all()


def test_missing_frames_are_zero_before_normalisation():
    clips = audio_to_clips(tone(440, 16000, 1.0), 16000, CONFIG)
    padding = (0 - CONFIG.audio_mean) / CONFIG.audio_std
    assert torch.allclose(clips[..., 98:], torch.tensor(padding))


def test_clips_are_spread_over_a_long_recording_at_little_cost():
    wave = torch.zeros(1, 48000 * 600)
    wave[:, 48000 * 598 :] = tone(1000, 48000, 2.0)
    started = time.process_time()
    first, middle, last = audio_to_clips(wave, 48000, CONFIG)
    assert time.process_time() - started < 2
    assert last.mean() > first.mean() + 0.1
    torch.testing.assert_close(first, middle)


def test_the_waveform_of_the_caller_stays_as_it_is():
    wave = tone(440, 16000, 3.0, channels=2).clone() + 0.1
    before = wave.clone()
    audio_to_clips(wave, 16000, CONFIG)
    assert torch.equal(wave, before)


def test_other_sizes_follow_the_config():
    config = PreprocessConfig(audio_mels=40, audio_frames=64, audio_clips=2, audio_clip_s=0.5)
    assert audio_to_clips(tone(440, 16000, 3.0), 16000, config).shape == (2, 1, 40, 64)


@pytest.mark.parametrize(
    ("samples", "rate_hz"),
    [(torch.zeros(1, 0), 16000), (torch.zeros(5), 16000), (torch.zeros(1, 9), 10**7)],
)
def test_what_cannot_be_sound_is_refused(samples, rate_hz):
    with pytest.raises(MediaError, match="found"):
        audio_to_clips(samples, rate_hz, CONFIG)


def test_stereo_arrays_use_the_mean_of_all_and_the_first_channel():
    left, right = tone(300, 16000, 2.0)[0], tone(3000, 16000, 2.0)[0]
    both = audio_to_clips(torch.stack([left, right]), 16000, CONFIG)
    alone = audio_to_clips(left[None], 16000, CONFIG)
    torch.testing.assert_close(both, alone, atol=1e-2, rtol=0)
    audio = load(Media.from_array(np.stack([left, right]), "audio", rate_hz=16000))
    assert audio.samples.shape[0] == 2
