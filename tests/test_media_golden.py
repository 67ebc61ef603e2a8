"""Media against the reference numbers."""

import numpy as np
import pytest
import soundfile
from conftest import stored_entry
from media_samples import (
    TRIANGLES,
)

from ibllm_tools.media import (
    Media,
    load,
)

INFO = "preprocess/info.json"


def from_golden(golden, name):
    return load(Media.from_path(golden.path(f"media/{name}")))


@pytest.mark.golden
@pytest.mark.parametrize("name", stored_entry(INFO, "audio") or ["any sound"])
def test_sounds_equal_soundfile_and_the_stated_header(golden, name):
    stated, item = golden.json(INFO)["audio"][name], from_golden(golden, name)
    reference, _ = soundfile.read(golden.path(f"media/{name}"), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(item.samples, reference.T)
    assert item.rate_hz == stated["sample_rate"]
    assert item.samples.shape == (stated["channels"], stated["samples"])


@pytest.mark.golden
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_video_clips_hold_the_stated_frames(golden, decoder):
    stated = golden.json(INFO)["video"]
    video = from_golden(golden, stated["file"])
    clips = stated[decoder]
    assert video.duration_s == pytest.approx(clips["duration"], abs=1e-9)
    assert video.fps == pytest.approx(clips["fps"], abs=1e-9)
    spans = clips["clip_start_end_seconds"]
    times = video.track.times_s
    for (start, end), count, chosen in zip(
        spans, clips["frames_in_clip"], clips["frames_chosen"], strict=True
    ):
        all_frames = video.frames([(start, end)], count)[0]
        inside = (times >= start - 1e-6) & (times < end - 1e-6)
        assert inside.sum() == count
        some = video.frames([(start, end)], len(chosen))[0]
        np.testing.assert_array_equal(some, all_frames[chosen])


@pytest.mark.golden
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_the_first_video_frame_is_equal(golden, decoder):
    raw = golden.tensors("preprocess/video.safetensors")[f"{decoder}.raw_frame0_uint8"]
    stated = golden.json(INFO)["video"]
    video = from_golden(golden, stated["file"])
    first = video.frames([(0.0, video.duration_s)], 2)[0][0]
    np.testing.assert_array_equal(first.transpose(2, 0, 1), raw.numpy())


@pytest.mark.golden
@pytest.mark.parametrize("name", stored_entry(INFO, "pointcloud") or ["any cloud"])
def test_point_clouds_equal_the_stated_values(golden, name):
    stated = golden.json(INFO)["pointcloud"][name]
    xyz = from_golden(golden, name).xyz
    assert list(xyz.shape) == stated["shape"][-2:]
    np.testing.assert_allclose(xyz[0], stated["first_row"], rtol=1e-6)
    np.testing.assert_allclose(xyz[-1], stated["last_row"], rtol=1e-6)
    total = float(np.abs(xyz.astype(np.float64)).sum())
    assert total == pytest.approx(stated["abs_sum"], rel=1e-6)


def test_triangles_of_the_cube_are_what_the_samples_say():
    assert len(TRIANGLES) == 12
