"""Decoders: every format of every modality, and the reference numbers."""

import base64
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from media_samples import (
    CUBE,
    cloud,
    encode_npy,
    encode_off,
    encode_picture,
    encode_ply,
    encode_pt,
    encode_sound,
    encode_track,
    encode_video,
    picture,
    sample,
)
from PIL import Image as PilImage

from ibllm_tools.errors import MediaError
from ibllm_tools.media import (
    Audio,
    Imu,
    Media,
    Points,
    Thermal,
    Video,
    load,
)


def block(data, type_="file", **more):
    return {"type": type_, "base64": base64.b64encode(data).decode(), **more}


def as_depth(data, **extras):
    return load(block(data, extras={"modality": "depth", **extras})).disparity


# --- pictures -------------------------------------------------------------------------------


def rgb(data):
    return np.asarray(load(block(data, "image")).pixels)


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_pictures_are_exact(format_):
    options = {"lossless": True} if format_ == "WEBP" else {}
    np.testing.assert_array_equal(rgb(encode_picture(format_, **options)), picture())


def test_opaque_pictures_equal_convert_rgb():
    for array in (picture(), picture()[..., 0]):
        data = encode_picture("JPEG", array)
        reference = np.asarray(PilImage.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(rgb(data), reference)


def test_grey_of_16_bits_is_scaled_not_cut():
    grey = np.array([[0, 257, 32896, 65535]], np.uint16)
    np.testing.assert_array_equal(rgb(encode_picture("PNG", grey))[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(rgb(encode_picture("TIFF", grey))[0, :, 2], [0, 1, 128, 255])


def test_float_grey_in_the_unit_range_is_a_picture():
    grey = np.array([[0.0, 0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(rgb(encode_picture("TIFF", grey))[0, :, 1], [0, 128, 255])
    with pytest.raises(MediaError, match="depth"):
        rgb(encode_picture("TIFF", grey * 300))


def test_transparency_lies_over_white():
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (255, 0, 0, 255)
    clear[1, 1] = (0, 0, 0, 128)
    pixels = rgb(encode_picture("PNG", clear))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[0, 1].tolist() == [255, 255, 255]
    assert abs(int(pixels[1, 1, 0]) - 127) <= 1


def test_opaque_alpha_changes_nothing():
    opaque = np.dstack([picture(), np.full(picture().shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(rgb(encode_picture("PNG", opaque)), picture())


def test_palettes_with_and_without_transparency():
    palette = PilImage.fromarray(picture()).quantize(16)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    np.testing.assert_array_equal(rgb(buffer.getvalue()), np.asarray(palette.convert("RGB")))
    index = int(np.asarray(palette)[0, 0])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=index)
    assert rgb(buffer.getvalue())[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation):
    from PIL import ImageOps

    exif = PilImage.Exif()
    exif[0x0112] = orientation
    data = encode_picture("PNG", exif=exif)
    expected = ImageOps.exif_transpose(PilImage.open(io.BytesIO(data)))
    np.testing.assert_array_equal(rgb(data), np.asarray(expected))


def test_broken_exif_does_not_cost_the_picture():
    data = encode_picture("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 9)
    assert rgb(data).shape == (30, 40, 3)


def test_cmyk_and_bilevel_pictures():
    buffer = io.BytesIO()
    PilImage.new("CMYK", (8, 8), (0, 255, 255, 0)).save(buffer, "JPEG")
    red = rgb(buffer.getvalue())[4, 4].astype(int)
    assert red[0] > 200
    assert red[1] < 60
    assert set(np.unique(rgb(encode_picture("PNG", picture()[..., 0] > 99)))) == {0, 255}


def test_the_first_frame_of_an_animation_is_taken():
    frames = [PilImage.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for format_ in ("GIF", "PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        options = {"lossless": True} if format_ == "WEBP" else {}
        frames[0].save(buffer, format_, save_all=True, append_images=frames[1:], **options)
        assert rgb(buffer.getvalue())[0, 0].tolist() == [255, 0, 0]


# --- depth and thermal ----------------------------------------------------------------------


def test_depth_in_millimetres_becomes_disparity_in_pixels():
    depth_mm = np.array([[0, 500, 1000, 10000]], np.uint16)
    expected = np.array([[0, 77.8286851, 38.9143426, 3.89143426]], np.float32)
    np.testing.assert_allclose(as_depth(encode_picture("PNG", depth_mm)), expected, rtol=1e-6)
    np.testing.assert_allclose(as_depth(encode_npy(depth_mm)), expected, rtol=1e-6)
    metres = encode_npy(depth_mm.astype(np.float32) / 1000)
    np.testing.assert_allclose(as_depth(metres, units="m"), expected, rtol=1e-6)


def test_float_maps_are_disparity_as_they_are():
    disparity = np.array([[0, 1.5], [20, 75]], np.float32)
    np.testing.assert_array_equal(as_depth(encode_npy(disparity)), disparity)
    np.testing.assert_array_equal(as_depth(encode_npy(disparity[None, None])), disparity)
    np.testing.assert_array_equal(as_depth(encode_picture("TIFF", disparity)), disparity)


def test_eight_bit_maps_span_the_range_of_disparity():
    grey = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(as_depth(encode_picture("PNG", grey)), [[0, 15, 75]], rtol=1e-6)


def test_unknown_units_and_negative_depth_are_refused():
    with pytest.raises(MediaError, match="units"):
        as_depth(encode_npy(np.ones((2, 2))), units="feet")
    with pytest.raises(MediaError, match="negative"):
        as_depth(encode_npy(-np.ones((2, 2))))


@pytest.mark.parametrize(
    "stored",
    [
        lambda grey: encode_picture("PNG", (grey * 255).astype(np.uint8)),
        lambda grey: encode_picture("PNG", np.dstack([(grey * 255).astype(np.uint8)] * 3)),
        lambda grey: encode_picture("PNG", (grey * 65535).astype(np.uint16)),
        lambda grey: encode_npy(grey.astype(np.float32)),
    ],
)
def test_thermal_pictures_come_as_the_unit_range(stored):
    grey = np.array([[0, 0.2, 1.0]])
    item = load(block(stored(grey), extras={"modality": "thermal"}))
    assert isinstance(item, Thermal)
    assert item.values.dtype == np.float32
    np.testing.assert_allclose(item.values, grey, atol=1e-4)


# --- sounds ---------------------------------------------------------------------------------


def heard(data):
    item = load(block(data, "audio"))
    assert isinstance(item, Audio)
    assert item.samples.dtype == np.float32
    assert np.abs(item.samples).max() <= 1
    return item


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_wav_files_equal_soundfile(subtype, channels):
    data = encode_sound(subtype=subtype, channels=channels, rate_hz=22050)
    reference, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    item = heard(data)
    assert item.rate_hz == rate_hz
    np.testing.assert_array_equal(item.samples, reference.T)


@pytest.mark.parametrize(("format_", "subtype"), [("FLAC", "PCM_16"), ("FLAC", "PCM_24")])
def test_flac_files_equal_soundfile(format_, subtype):
    data = encode_sound(format_, subtype)
    reference, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(heard(data).samples, reference.T)


@pytest.mark.parametrize("format_", ["OGG", "MP3"])
def test_lossy_files_equal_soundfile_closely(format_):
    data = encode_sound(format_, seconds=3.0, rate_hz=44100, channels=2)
    reference, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    samples = heard(data).samples
    assert samples.shape == reference.T.shape
    np.testing.assert_allclose(samples, reference.T, atol=1e-5)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("ogg", "libopus"), ("mp4", "aac"), ("adts", "aac"), ("webm", "libopus")],
)
def test_containers_of_sound_keep_length_and_loudness(container, codec):
    item = heard(encode_track(container, codec, seconds=1.0))
    assert abs(item.duration_s - 1.0) < 0.08
    middle = item.samples[0, 10_000:40_000]
    assert abs(float(np.sqrt((middle**2).mean())) - 0.5 / np.sqrt(2)) < 0.03


def test_any_rate_and_length():
    for rate_hz in (8000, 11025, 96000, 192000):
        assert heard(encode_sound(rate_hz=rate_hz, seconds=0.1)).rate_hz == rate_hz
    assert heard(encode_sound(seconds=1 / 16000)).samples.shape == (1, 1)


def test_float_samples_beyond_one_are_clipped_and_other_scales_refused():
    loud = Media.from_array(np.array([0.5, 1.5, -2.0], np.float32), "audio", rate_hz=16000)
    np.testing.assert_array_equal(load(loud).samples, [[0.5, 1.0, -1.0]])
    wrong = Media.from_array(np.array([0.5, 20000.0], np.float32), "audio", rate_hz=16000)
    with pytest.raises(MediaError, match="32768"):
        load(wrong)


# --- videos ---------------------------------------------------------------------------------


def numbers(frames):
    """The frame numbers that the grey values of a test video tell."""
    return np.rint((frames[:, 24, 32].mean(axis=-1) - 10) / 4).astype(int).tolist()


VIDEOS = [
    "video.mp4",
    "front.mp4",
    "video.mov",
    "video.webm",
    "video.mkv",
    "video.avi",
    "reordered.avi",
]


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_chosen_by_time(name):
    video = load(block(sample(name), "video"))
    assert isinstance(video, Video)
    assert abs(video.duration_s - 3.0) < 0.02
    assert abs(video.fps - 10) < 0.1
    spans = [(0.0, 1.0), (0.05, 1.05), (2.0, 3.0), (1.0, 1.3)]
    chosen = [numbers(frames) for frames in video.frames(spans, 3)]
    assert chosen == [[0, 4, 9], [1, 5, 10], [20, 24, 29], [10, 11, 12]]


def test_frames_of_short_and_empty_spans_repeat_what_is_shown():
    video = load(block(sample("video.mp4"), "video"))
    spans = [(0.5, 0.6), (0.52, 0.58), (5.0, 6.0), (-2.0, -1.0)]
    assert [numbers(f) for f in video.frames(spans, 2)] == [[5, 5], [5, 5], [29, 29], [0, 0]]
    assert video.frames([], 2) == []


def test_frames_have_shape_and_type():
    (frames,) = load(block(sample("video.webm"), "video")).frames([(0, 1)], 4)
    assert (frames.shape, frames.dtype) == ((4, 48, 64, 3), np.uint8)


def test_one_video_serves_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    video = load(block(sample("video.mp4"), "video"))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda s: numbers(video.frames([(s, s + 1)], 2)[0]), [0, 1, 2, 1]))
    assert results == [[0, 9], [10, 19], [20, 29], [10, 19]]


def test_the_sound_track_of_a_video():
    for name, has_sound in [("video.mp4", True), ("video.webm", True), ("video.mkv", False)]:
        audio = load(block(sample(name), "video")).audio()
        assert (audio is not None) == has_sound
        assert audio is None or abs(audio.duration_s - 3.0) < 0.1


def test_a_turned_phone_video_comes_upright():
    data = encode_video("mp4", "libx264", n_frames=4, half=True)
    one = 65536
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 2**30)
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 2**30)
    track = data.index(b"tkhd")
    turned = data[:track] + data[track:].replace(upright, quarter, 1)
    (frames,) = load(block(turned, "video")).frames([(0, 1)], 1)
    assert frames.shape == (1, 64, 48, 3)
    # Turned clockwise by a quarter, the bright left half comes to the top.
    assert frames[0, :28].min() > 200
    assert frames[0, 36:].max() < 60


# --- shapes and motion ----------------------------------------------------------------------


def shape(data, **more):
    item = load(block(data, **more))
    assert isinstance(item, Points)
    assert item.xyz.dtype == np.float32
    return item.xyz


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_clouds_keep_points_and_order(order):
    np.testing.assert_allclose(shape(encode_ply(order, points=cloud())), cloud(), rtol=1e-5)


MESHES = ["little.ply", "big.ply", "cube.obj", "cube.off", "binary.stl", "text.stl"]


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_sampled_evenly_over_their_surface(name):
    xyz = shape(sample(name), extras={"name": name})
    assert xyz.shape == (8192, 3)
    on_a_side = (np.isclose(xyz, 0, atol=1e-6) | np.isclose(xyz, 1, atol=1e-6)).any(axis=1)
    assert on_a_side.all()
    assert xyz.min() >= 0
    assert xyz.max() <= 1
    np.testing.assert_allclose(xyz.mean(axis=0), 0.5, atol=0.02)
    per_side = [np.isclose(xyz[:, axis], side).sum() for axis in range(3) for side in (0, 1)]
    np.testing.assert_allclose(per_side, 8192 / 6, rtol=0.1)


def test_sampling_is_the_same_every_time_and_by_area():
    data = encode_ply("ascii", [[0, 1, 3, 2], [4, 5, 7]])
    np.testing.assert_array_equal(shape(data), shape(data))
    on_the_square = np.isclose(shape(data)[:, 0], 0).mean()
    assert abs(on_the_square - 2 / 3) < 0.02


def test_mixed_polygons_and_off_variants():
    faces = [[0, 1, 3, 2], [4, 6, 7], [0, 4, 5, 1, 3]]
    for order in ("ascii", "binary_little_endian", "binary_big_endian"):
        assert shape(encode_ply(order, faces)).shape == (8192, 3)
    for head in ("OFF ", "OFF # cube\n\n"):
        assert shape(encode_off(head)).shape == (8192, 3)


def test_flat_or_few_faces_leave_the_cloud():
    flat = encode_ply("ascii", [[0, 0, 0], [1, 1, 1], [2, 3, 2], [4, 5, 6]][:3])
    assert shape(flat).shape == (8, 3)
    few = encode_ply("ascii", [[0, 1, 2]])
    np.testing.assert_array_equal(shape(few), CUBE)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_clouds(dtype, order):
    points = np.asarray(np.arange(30).reshape(10, 3), dtype, order=order)
    np.testing.assert_array_equal(shape(encode_npy(points)), points)
    np.testing.assert_array_equal(shape(encode_npy(points[None])), points)


def test_extra_columns_are_left_out():
    wide = np.c_[cloud(), np.ones((50, 3))]
    np.testing.assert_array_equal(
        shape(encode_npy(wide.astype(np.float32)), extras={"modality": "point"}), cloud()
    )
    rows = "".join(f"{x},{y},{z},9\n" for x, y, z in cloud())
    commas = f"# x,y,z,i\n{rows}".encode()
    np.testing.assert_allclose(shape(commas, extras={"name": "a.xyz"}), cloud(), rtol=1e-6)


def test_torch_files_of_one_tensor():
    import torch

    points = torch.from_numpy(cloud())
    for value in (
        points,
        points[None],
        [points],
        {"points": points},
        points.double(),
        points.half(),
        torch.nn.Parameter(points),
        points.t().contiguous().t(),
        torch.cat([points, points])[50:],
    ):
        np.testing.assert_allclose(shape(encode_pt(value)), cloud(), rtol=1e-3, atol=1e-3)


def test_reading_a_torch_file_needs_no_torch(tmp_path):
    path = tmp_path / "cloud.pt"
    path.write_bytes(sample("cloud.pt"))
    code = (
        "import sys; from ibllm_tools.media import Media, load\n"
        f"assert load(Media.from_path({str(path)!r})).xyz.shape == (50, 3)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["imu.npy", "imu.csv"])
def test_motion_is_six_axes_over_time(name):
    item = load(block(sample(name)))
    assert isinstance(item, Imu)
    assert item.signal.shape[0] == 6


def test_motion_of_either_orientation_and_with_times():
    signal = np.arange(60, dtype=np.float32).reshape(6, 10)
    for array in (signal, signal.T, signal[None]):
        np.testing.assert_array_equal(load(block(encode_npy(array))).signal, signal)
    rows = "".join(f"{i}," + ",".join(f"{v}" for v in row) + "\n" for i, row in enumerate(signal.T))
    table = ("\ufefftime_s,ax,ay,az,gx,gy,gz\r\n" + rows).encode()
    timed = load(block(table, extras={"modality": "imu"}))
    np.testing.assert_array_equal(timed.signal, signal)
