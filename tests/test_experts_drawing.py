"""Pictures of results: boxes are where they belong, labels can be read, any picture will do."""

import numpy as np
import pytest
from PIL import Image

from ibllm_tools.errors import MediaError
from ibllm_tools.experts import (
    Detection,
    Detections,
    Segment,
    Transcript,
    Word,
    draw_detections,
    draw_transcript,
)
from ibllm_tools.experts.drawing import COLOURS

RATE_HZ = 16_000


def found(*detections, size=(640, 480)):
    return Detections(
        detections=list(detections), width_px=size[0], height_px=size[1], model="some/model"
    )


def is_near(pixels, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(pixels.astype(int) - wanted).max(axis=-1) < 12


def test_a_box_is_drawn_where_it_is_and_the_picture_is_not_changed():
    picture = Image.new("RGB", (640, 480), "#808080")
    before = picture.tobytes()
    drawn = draw_detections(
        picture, found(Detection(label="dog", score=0.9, box=(100, 150, 300, 400)))
    )
    assert picture.tobytes() == before
    assert (drawn.size, drawn.mode) == ((640, 480), "RGB")
    edges = is_near(np.asarray(drawn), COLOURS[0])
    assert edges[150:400, 100].mean() > 0.95
    assert edges[150:400, 300].mean() > 0.95
    assert edges[400, 100:300].mean() > 0.95
    inside = np.asarray(drawn)[200:390, 120:280]
    assert (inside == 128).all()


def test_a_label_is_light_writing_on_a_dark_plate_above_its_box():
    picture = Image.new("RGB", (640, 480), "#808080")
    drawn = draw_detections(
        picture, found(Detection(label="dog", score=0.9, box=(100, 150, 300, 400)))
    )
    plate = np.asarray(drawn)[128:148, 101:160]
    assert is_near(plate, COLOURS[0]).mean() > 0.4
    assert is_near(plate, "#ffffff").sum() > 20


def test_other_labels_have_other_colours():
    drawn = draw_detections(
        Image.new("RGB", (640, 480)),
        found(
            Detection(label="dog", score=0.9, box=(10, 100, 110, 200)),
            Detection(label="bus", score=0.8, box=(300, 100, 500, 300)),
        ),
    )
    pixels = np.asarray(drawn)
    assert is_near(pixels[250, 300], COLOURS[0])  # bus comes before dog
    assert is_near(pixels[150, 10], COLOURS[1])


def test_plates_of_objects_at_one_place_do_not_cover_each_other():
    boxes = [
        Detection(label=label, score=0.9 - i / 10, box=(200, 200, 400, 400))
        for i, label in enumerate(["dog", "bus", "cat"])
    ]
    pixels = np.asarray(draw_detections(Image.new("RGB", (640, 480), "#808080"), found(*boxes)))
    for colour in COLOURS[:3]:
        assert is_near(pixels, colour).sum() > 400


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_pictures_of_any_mode(mode):
    picture = Image.new(mode, (50, 40))
    drawn = draw_detections(
        picture, found(Detection(label="dog", score=0.5, box=(5, 5, 45, 35)), size=(50, 40))
    )
    assert drawn.mode == "RGB"
    assert drawn.size == (480, 384)  # enlarged, so that the label can be read
    assert is_near(np.asarray(drawn)[200, 48], COLOURS[0])


def test_boxes_at_the_edge_and_long_or_foreign_labels_stay_in_the_picture():
    labels = ["a very long name of a thing " * 6, "狗", "собака"]
    boxes = [(0, 0, 640, 480), (600, 0, 640, 20), (0, 470, 5, 480)]
    detections = [
        Detection(label=label, score=1, box=box) for label, box in zip(labels, boxes, strict=True)
    ]
    assert draw_detections(Image.new("RGB", (640, 480)), found(*detections)).size == (640, 480)


def test_nothing_found_gives_the_picture_itself():
    picture = Image.effect_noise((640, 480), 50).convert("RGB")
    assert draw_detections(picture, found()).tobytes() == picture.tobytes()


def said(*segments):
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        language="en" if segments else None,
        segments=list(segments),
        is_speech=bool(segments),
        model="some/model",
    )


def beep(start_s, end_s, length_s=4.0):
    time_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    on = (time_s >= start_s) & (time_s < end_s)
    return (0.5 * on * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)


def columns(picture, colour):
    """The first and last column, as a share of the drawn width, where a colour is tall."""
    tall = is_near(np.asarray(picture)[60:220], colour).sum(axis=0) > 40
    places = (np.flatnonzero(tall) - 24) / (1200 - 48)
    return places.min(), places.max()


def test_a_waveform_stands_at_its_time_with_its_words_below():
    word = Word(text="beep", start_s=1, end_s=2)
    segment = Segment(text="beep", start_s=1, end_s=2, words=[word], no_speech=0.1)
    drawn = draw_transcript(beep(1, 2), RATE_HZ, said(segment))
    assert drawn.width == 1200
    assert columns(drawn, "#0055a4") == pytest.approx((0.25, 0.5), abs=0.01)
    below = np.asarray(drawn)[260:]
    dark = np.flatnonzero((below.max(axis=-1) < 90).any(axis=0))
    assert dark.min() == pytest.approx(24 + 0.25 * 1152, abs=6)


def test_silence_says_that_nobody_speaks_and_has_no_band():
    quiet = draw_transcript(np.zeros(RATE_HZ, np.float32), RATE_HZ, said())
    band = np.array([0xE3, 0xED, 0xF7])
    assert not (np.asarray(quiet) == band).all(axis=-1).any()
    segment = Segment(text="beep", start_s=0, end_s=1, no_speech=0)
    spoken = draw_transcript(np.zeros(RATE_HZ, np.float32), RATE_HZ, said(segment))
    assert (np.asarray(spoken) == band).all(axis=-1).any()
    assert quiet.tobytes() != spoken.tobytes()


@pytest.mark.parametrize("n_samples", [1, 100, 3_000_000])
def test_sounds_of_any_length(n_samples):
    words = [Word(text=f"word{i}", start_s=0, end_s=0) for i in range(300)]
    segment = Segment(text="many", start_s=0, end_s=0, words=words, no_speech=0)
    sound = np.ones(n_samples, np.float32) / 2
    assert draw_transcript(sound, RATE_HZ, said(segment)).width == 1200


def test_what_is_no_sound_or_picture_is_refused():
    with pytest.raises(MediaError, match="mono"):
        draw_transcript(np.zeros((2, 10), np.float32), RATE_HZ, said())
    with pytest.raises(MediaError, match="20 : 1"):
        draw_detections(Image.new("L", (1, 100)), found())
