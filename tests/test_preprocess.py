"""Pictures, videos, motion, shapes, and batches of them: reference numbers and behaviour."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import stored_entry, stored_names

from ibllm_tools.errors import ConfigurationError, MediaError
from ibllm_tools.media import (
    Audio,
    Depth,
    Image,
    Imu,
    Media,
    Points,
    Text,
    Thermal,
    load,
)
from ibllm_tools.preprocess import (
    MediaBatch,
    PreprocessConfig,
    farthest_points,
    frames_to_crops,
    image_to_pixels,
    normalize_pixels,
    normalize_points,
    pixels_to_views,
    preprocess,
    resample_points,
    stretch_disparity,
    video_spans,
)

CONFIG = PreprocessConfig()
SMALL = PreprocessConfig(
    image_px=32, depth_px=24, thermal_px=24, imu_samples=50, n_points=64, text_context=16,
    audio_mels=16, audio_frames=32,
)  # fmt: skip
GENERATOR = np.random.default_rng(0)


INFO = "preprocess/info.json"
STORED_CLOUDS = list(stored_entry(INFO, "pointcloud") or ["any cloud"])


def picture(width, height):
    pixels = GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image(pixels=PIL.Image.fromarray(pixels))


@pytest.mark.golden
@pytest.mark.parametrize("name", stored_names("preprocess/vision.safetensors") or ["any picture"])
def test_photos_equal_the_reference(golden, name):
    expected = golden.tensors("preprocess/vision.safetensors")[name]
    config = PreprocessConfig(image_px=expected.shape[-1])
    found = preprocess(load(Media.from_path(golden.path(f"media/{name}"))), config)
    # another JPEG decoder may differ by two levels at some pixels
    assert (found - expected).abs().mean() < 1e-3
    torch.testing.assert_close(found, expected, atol=2 / 255 / 0.26, rtol=0)


def video_config(info):
    """The sizes with which one reference video was read."""
    spans, (_, _, n_frames, _, px) = info["clip_start_end_seconds"], info["tensor_shape"]
    return PreprocessConfig(
        image_px=px,
        video_clips=len(spans),
        video_clip_s=spans[0][1] - spans[0][0],
        video_frames=n_frames,
        video_crops=info["tensor_shape"][0] // len(spans),
    )


@pytest.fixture(scope="module", params=["pyav", "decord"])
def reference_video(golden, request):
    """Sizes, stored tensors by short names, and our tensor of the video."""
    decoder, video = request.param, golden.json(INFO)["video"]
    stored = golden.tensors("preprocess/video.safetensors")
    info = video[decoder]
    loaded = load(Media.from_path(golden.path(f"media/{video['file']}")))
    tensors = {
        name.removeprefix(f"{decoder}."): tensor
        for name, tensor in stored.items()
        if name.startswith(decoder)
    }
    return info, tensors, preprocess(loaded, video_config(info))


@pytest.mark.golden
@pytest.mark.parametrize("part", ["crops_of_clip0", "stride", "mean_per_crop_frame_channel"])
def test_videos_equal_the_reference(reference_video, part):
    info, tensors, found = reference_video
    assert list(found.shape) == info["tensor_shape"]
    name = next((name for name in tensors if name.startswith(part)), None)
    if name is None:
        pytest.skip(f"no {part} is stored")
    expected, tolerance = tensors[name].float(), 2e-3  # stored as float16
    if part == "crops_of_clip0":
        found = found[: len(expected)]
    elif part == "stride":
        step = int(name.removeprefix("stride"))
        found = found[..., ::step, ::step]
    else:
        found, tolerance = found.mean((-1, -2)), 1e-4
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_video_clips_begin_and_end_as_in_the_reference(golden, decoder):
    info = golden.json(INFO)["video"][decoder]
    spans = video_spans(info["duration"], video_config(info))
    np.testing.assert_allclose(spans, info["clip_start_end_seconds"], atol=1e-9)


@pytest.mark.golden
def test_point_normalisation_equals_the_reference(golden):
    stored = golden.tensors("preprocess/pointcloud.safetensors")
    found = normalize_points(stored["pc_normalize.in"])
    torch.testing.assert_close(found, stored["pc_normalize.out"], atol=1e-6, rtol=0)


@pytest.mark.golden
def test_farthest_points_equal_the_reference(golden):
    stored = golden.tensors("preprocess/pointcloud.safetensors")
    name = next((name for name in stored if name.startswith("fps_numpy_")), "fps_numpy_start5.out")
    expected, cloud = stored[name], stored["pc_normalize.out"]
    start = int((cloud == expected[0]).all(dim=1).nonzero()[0])
    chosen = farthest_points(cloud.numpy(), len(expected), start)
    assert torch.equal(cloud[chosen], expected)


@pytest.mark.golden
@pytest.mark.parametrize("name", STORED_CLOUDS)
def test_clouds_are_the_stored_points_centred_and_scaled(golden, name):
    info = golden.json(INFO)["pointcloud"][name]
    item = load(Media.from_path(golden.path(f"media/{name}"), modality="point"))
    n = info["shape"][-2]
    assert item.xyz.shape == (n, 3)
    np.testing.assert_allclose(item.xyz[0], info["first_row"], rtol=1e-6)
    np.testing.assert_allclose(item.xyz[-1], info["last_row"], rtol=1e-6)
    np.testing.assert_allclose(np.abs(item.xyz.astype(float)).sum(), info["abs_sum"], rtol=1e-5)
    cloud = preprocess(item, CONFIG)
    assert cloud.shape == (CONFIG.n_points, 3)
    expected = normalize_points(torch.from_numpy(item.xyz))
    kept = min(n, CONFIG.n_points)
    torch.testing.assert_close(cloud[:kept], expected[:kept], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (300, 197), (40, 400), (9000, 3), (3, 9000)])
def test_pictures_of_any_shape_become_squares(size):
    pixels = preprocess(picture(*size), CONFIG)
    assert pixels.shape == (3, 224, 224)
    assert pixels.is_contiguous()


def test_very_long_pictures_are_cut_as_others_are(monkeypatch):
    """The bounded way gives what the plain way gives."""
    from ibllm_tools.preprocess import image

    long = picture(50, 1000)
    bounded = preprocess(long, SMALL)
    monkeypatch.setattr(image, "_LONGEST_ASPECT", 100)
    plain = preprocess(long, SMALL)
    assert (bounded - plain).abs().mean() < 1e-3
    torch.testing.assert_close(bounded, plain, atol=2 / 255 / 0.26, rtol=0)


def test_a_batch_of_pixels_is_normalised_as_pictures_are():
    pictures = [picture(32, 32) for _ in range(3)]
    pixels = torch.from_numpy(np.stack([np.array(one.pixels) for one in pictures]))
    expected = torch.stack([preprocess(one, SMALL) for one in pictures])
    torch.testing.assert_close(normalize_pixels(pixels, SMALL), expected)


@pytest.mark.parametrize("shape", [(48, 90), (90, 48), (30, 30)])
def test_video_crops_run_along_the_longer_side(shape):
    frames = np.zeros((2, *shape, 3), np.uint8)
    along = 1 if shape[0] > shape[1] else 2
    ramp = np.linspace(0, 255, frames.shape[along]).astype(np.uint8)
    frames += ramp.reshape([-1 if axis == along else 1 for axis in range(4)])
    crops = frames_to_crops([frames, frames], SMALL)
    assert crops.shape == (6, 3, 2, 32, 32)
    means = crops.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(means[:3], means[3:])
    if shape[0] == shape[1]:
        torch.testing.assert_close(means[0], means[2])
    else:
        assert means[0] < means[1] < means[2]


def test_the_number_of_crops_follows_the_config():
    frames = np.zeros((2, 30, 60, 3), np.uint8)
    frames[:, :, 28:32] = 255
    config = PreprocessConfig(image_px=30, video_crops=1)
    crops = frames_to_crops([frames], config)
    assert crops.shape == (1, 3, 2, 30, 30)
    assert crops[..., 15].mean() > crops[..., 0].mean()


def test_ribbons_of_video_are_refused():
    with pytest.raises(MediaError, match="3000x2"):
        frames_to_crops([np.zeros((2, 2, 3000, 3), np.uint8)], CONFIG)


def test_maps_are_scaled_and_cropped_but_not_normalised():
    left_to_right = np.tile(np.linspace(0.2, 0.9, 90, dtype=np.float32), (60, 1))
    for item in (Depth(disparity=left_to_right * 80), Thermal(values=left_to_right)):
        values = preprocess(item, SMALL)
        given = item.disparity if isinstance(item, Depth) else item.values
        assert values.shape == (1, 24, 24)
        assert values.dtype == torch.float32
        centre = given[:, 15:75]
        assert centre.min() - 1e-3 <= values.min()
        assert values.max() <= centre.max() + 1e-3
        assert values.mean().item() == pytest.approx(centre.mean(), rel=1e-3)


def test_sharp_edges_do_not_leave_the_range():
    values = np.zeros((100, 100), np.float32)
    values[40:60] = 1.0
    found = preprocess(Thermal(values=values), SMALL)
    assert found.min() >= 0
    assert found.max() <= 1


def test_disparity_can_be_stretched_to_the_unit_range():
    disparity = GENERATOR.uniform(3, 80, (60, 60)).astype(np.float32)
    config = PreprocessConfig.from_dict({**SMALL.to_dict(), "depth_unit_range": True})
    stretched = preprocess(Depth(disparity=disparity), config)
    expected = stretch_disparity(preprocess(Depth(disparity=disparity), SMALL))
    assert torch.equal(stretched, expected)
    assert (stretched.min(), stretched.max()) == (0, 1)
    assert (stretch_disparity(torch.full((2, 4, 4), 7.0)) == 0).all()


@pytest.mark.parametrize("n", [1, 20, 50, 700])
def test_motion_is_stretched_to_the_window(n):
    t = np.linspace(0, 1, n, dtype=np.float32)
    signal = preprocess(Imu(signal=np.stack([t * k for k in range(6)])), SMALL)
    assert signal.shape == (6, 50)
    if n > 1:
        expected = torch.outer(torch.arange(6.0), torch.linspace(0, 1, 50))
        torch.testing.assert_close(signal, expected, atol=0.3, rtol=0)


def test_motion_of_the_right_length_is_left_alone():
    signal = GENERATOR.normal(size=(6, 50)).astype(np.float32)
    assert torch.equal(preprocess(Imu(signal=signal), SMALL), torch.from_numpy(signal))


@pytest.mark.parametrize("n", [1, 2, 40, 64, 1000])
def test_clouds_are_centred_scaled_and_resampled(n):
    xyz = (GENERATOR.normal(size=(n, 3)) * 50 + 1000).astype(np.float32)
    cloud = preprocess(Points(xyz=xyz), SMALL)
    assert cloud.shape == (64, 3)
    assert cloud.norm(dim=1).max() <= 1 + 1e-5
    given = normalize_points(torch.from_numpy(xyz).double()).float()
    distance = (cloud[:, None] - given[None]).norm(dim=-1).amin(dim=1)
    assert distance.max() < 1e-5
    assert torch.equal(cloud, preprocess(Points(xyz=xyz), SMALL))


def test_thinning_takes_no_point_twice_and_filling_takes_all():
    cloud = torch.randn(100, 3)
    assert len(resample_points(cloud, 60).unique(dim=0)) == 60
    assert len(resample_points(cloud, 130).unique(dim=0)) == 100
    assert torch.equal(resample_points(cloud, 100), cloud)


def mixed_rows():
    t = np.linspace(0, 1, 16000, dtype=np.float32)
    sound = Audio(samples=np.sin(2800 * t)[None], rate_hz=16000, weight=0.5)
    text, cloud = Text(text="a dog"), Points(xyz=GENERATOR.normal(size=(90, 3)).astype("f"))
    photo = picture(40, 50)
    return [[photo, sound], [], [sound, text, sound], [cloud, picture(64, 20)]]


def test_a_batch_knows_the_row_and_weight_of_every_tensor():
    batch = MediaBatch.collate(mixed_rows(), SMALL)
    assert batch.n_rows == len(batch) == 4
    assert {name: tuple(x.shape) for name, x in batch.inputs.items()} == {
        "image": (2, 3, 32, 32),
        "audio": (3, 3, 1, 16, 32),
        "text": (1, 16),
        "point": (1, 64, 3),
    }
    rows = {name: x.tolist() for name, x in batch.rows.items()}
    assert rows == {"image": [0, 3], "audio": [0, 2, 2], "text": [2], "point": [3]}
    assert batch.weights["audio"].tolist() == [0.5, 0.5, 0.5]
    assert batch.has_media.tolist() == [True, False, True, True]


def test_an_item_in_a_batch_is_what_it_is_alone():
    rows = mixed_rows()
    batch = MediaBatch.collate(rows, SMALL)
    for row, items in enumerate(rows):
        alone = MediaBatch.collate([items], SMALL)
        for name, expected in alone.inputs.items():
            assert torch.equal(batch.inputs[name][batch.rows[name] == row], expected)


def test_only_floats_change_their_dtype():
    batch = MediaBatch.collate(mixed_rows(), SMALL).to("cpu", torch.bfloat16)
    assert batch.inputs["image"].dtype == torch.bfloat16
    assert batch.inputs["text"].dtype == torch.int64
    assert batch.rows["audio"].dtype == torch.int64
    assert batch.weights["audio"].dtype == torch.float32


def test_a_batch_without_media_is_empty():
    batch = MediaBatch.collate([[], []], SMALL).to("cpu")
    assert batch.inputs == {}
    assert batch.has_media.tolist() == [False, False]


def test_what_is_not_an_item_is_refused():
    with pytest.raises(MediaError, match="str"):
        preprocess("dog.jpg", CONFIG)


def test_the_config_survives_json():
    assert PreprocessConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL
    assert PreprocessConfig.from_dict({"image_px": 64, "processor_class": "x"}).image_px == 64


@pytest.mark.parametrize("wrong", [{"image_px": 0}, {"text_merges": 50000}, {"text_context": 1}])
def test_sizes_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        PreprocessConfig(**wrong)


def test_views_of_an_image_are_zoomed_and_mirrored() -> None:
    """Each zoom shows the centre; mirrored views follow; the encoder takes them as clips."""
    gradient = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (100, 1))  # grows to the right
    picture = PIL.Image.fromarray(np.stack([gradient] * 3, axis=-1))
    config = PreprocessConfig(image_px=20, image_zooms=(1.0, 0.5), image_flips=True)
    views = image_to_pixels(picture, config)
    assert views.shape == (4, 3, 20, 20)
    whole, half, mirrored, _ = views
    spans = [float(v[0, 0, -1] - v[0, 0, 0]) for v in (whole, half)]
    assert spans[1] == pytest.approx(spans[0] / 2, rel=0.1)
    assert torch.equal(mirrored, whole.flip(-1))
    plain = image_to_pixels(picture, PreprocessConfig(image_px=20))
    assert torch.equal(plain, whole)


def test_pixels_give_the_same_views_as_the_picture() -> None:
    """What training sees of stored pixels is what a picture of that size gives."""
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise).resize((32, 32), PIL.Image.Resampling.BICUBIC)
    config = PreprocessConfig(image_px=32, image_zooms=(0.8,), image_flips=True)
    views = image_to_pixels(picture, config)
    pixels = image_to_pixels(picture, PreprocessConfig(image_px=32))[None]
    difference = (pixels_to_views(pixels, config)[0] - views).abs()
    assert float(difference.mean()) < 0.03


def test_zooms_must_be_shares() -> None:
    """A zoom outside (0, 1], or none, is refused."""
    for zooms in ((), (0.0,), (1.5,)):
        with pytest.raises(ConfigurationError, match="image_zooms"):
            PreprocessConfig(image_zooms=zooms)
