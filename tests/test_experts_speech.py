"""Speech: a tiny Whisper that learned to write tones as words, real sounds, silence, noise."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import expert_models
import numpy as np
import pytest
from expert_models import RATE_HZ, hiss, language_of, spoken, tones

from ibllm_tools.errors import (
    CheckpointError,
    ConfigurationError,
    MediaError,
    MissingExtraError,
)
from ibllm_tools.experts import (
    Recognizer,
    open_recognizer,
    set_memory_budget,
    unload_experts,
)
from ibllm_tools.experts.hearing import (
    Heard,
    Limits,
    is_believed,
    is_silent,
    loudness_db,
    make_segment,
)
from ibllm_tools.experts.registry import REGISTRY
from ibllm_tools.experts.words import to_words
from ibllm_tools.media import Media, load

SOUNDS = Path(__file__).parents[1] / "ibllm_tools" / "demo_media"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return expert_models.whisper(tmp_path_factory.mktemp("speech") / "whisper")


@pytest.fixture(autouse=True)
def _unload():
    unload_experts()
    yield
    set_memory_budget(None)
    unload_experts()


@pytest.fixture(scope="module")
def recognizer(checkpoint):
    return open_recognizer(checkpoint, device="cpu")


def check_times(transcript, length_s):
    before_s = 0.0
    for segment in transcript.segments:
        assert before_s <= segment.start_s <= segment.end_s <= length_s
        before_s = segment.start_s
        word_s = segment.start_s
        for word in segment.words:
            assert word_s <= word.start_s <= word.end_s <= segment.end_s
            word_s = word.start_s


def test_words_language_and_times_of_sounds_that_it_never_heard(recognizer):
    assert isinstance(recognizer, Recognizer)
    n_right = n_languages = 0
    in_place = []  # whether a word's time holds the middle of its tone
    for seed in range(1000, 1012):
        words = spoken(seed)
        transcript = recognizer.transcribe(tones(words, seed), RATE_HZ)
        assert transcript.is_speech
        check_times(transcript, 2.0)
        right = transcript.text.split() == words
        n_right += right
        n_languages += transcript.language == language_of(words)
        if right:
            (segment,) = transcript.segments
            assert [word.text for word in segment.words] == words
            assert segment.start_s == pytest.approx(0.2, abs=0.1)
            stop_s = expert_models.SLOTS_S[len(words) - 1] + expert_models.TONE_S
            assert segment.end_s == pytest.approx(stop_s, abs=0.2)
            assert segment.no_speech < 0.5
            in_place += [
                word.start_s <= slot_s + expert_models.TONE_S / 2 <= word.end_s
                for word, slot_s in zip(segment.words, expert_models.SLOTS_S, strict=False)
            ]
    assert n_right >= 10
    assert n_languages >= 9
    assert np.mean(in_place) >= 0.8


def test_a_sound_longer_than_a_window_is_heard_whole(recognizer):
    parts = [["low", "high", "low"], ["high"], ["middle", "low"]]
    sound = np.concatenate([tones(words, seed) for seed, words in enumerate(parts)])
    transcript = recognizer.transcribe(sound, RATE_HZ)
    check_times(transcript, 6.0)
    assert [segment.text.split() for segment in transcript.segments] == parts
    starts_s = [segment.start_s for segment in transcript.segments]
    assert starts_s == pytest.approx([0.2, 2.2, 4.2], abs=0.1)
    assert transcript.text == " ".join(word for words in parts for word in words)


def test_speech_cut_by_the_end_of_a_window_is_heard_in_the_next(recognizer):
    """Two times in a row at the end of a window say that a segment begins there."""
    from ibllm_tools.experts.speech import _Whisper

    with recognizer._use() as whisper:
        assert isinstance(whisper, _Whisper)
        zero = whisper.settings.no_timestamps_token_id + 1
        assert whisper._is_cut([zero, 5, zero + 40, zero + 40])
        assert not whisper._is_cut([zero, 5, zero + 40])
        assert not whisper._is_cut([zero, 5, zero + 40, whisper.settings.eos_token_id])
        assert not whisper._is_cut([5, 6])


def test_another_rate_and_a_pause_are_no_matter(recognizer):
    words = ["middle", "high"]
    sound = tones(words, 3)
    doubled = np.repeat(sound, 2)
    assert recognizer.transcribe(doubled, 2 * RATE_HZ).text.split() == words
    pause = np.zeros(4 * RATE_HZ, np.float32)
    late = recognizer.transcribe(np.concatenate([pause, sound]), RATE_HZ)
    assert late.text.split() == words
    assert late.segments[0].start_s == pytest.approx(4.2, abs=0.2)


def test_eight_threads_share_one_load_and_hear_what_one_hears(recognizer, monkeypatch):
    sounds = [tones(spoken(seed), seed) for seed in range(500, 508)]
    loads, kind = [], type(recognizer)
    load_model = kind._load
    monkeypatch.setattr(kind, "_load", lambda self: loads.append(1) or load_model(self))
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda sound: recognizer.transcribe(sound, RATE_HZ), sounds))
    assert together == [recognizer.transcribe(sound, RATE_HZ) for sound in sounds]
    assert loads == [1]
    assert len({transcript.text for transcript in together}) > 2


def test_noise_gives_an_empty_flagged_transcript(recognizer):
    for seed in range(3):
        transcript = recognizer.transcribe(hiss(9000 + seed), RATE_HZ)
        assert transcript.text == ""
        assert transcript.segments == []
        assert transcript.language is None
        assert transcript.is_speech is False


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(RATE_HZ, np.float32),
        np.full(RATE_HZ, 0.3, np.float32),  # an offset, not a sound
        1e-4 * np.sin(np.arange(RATE_HZ, dtype=np.float32)),
        np.zeros(1, np.float32),
    ],
)
def test_silence_is_flagged_without_loading_the_model(recognizer, sound):
    transcript = recognizer.transcribe(sound, RATE_HZ)
    assert (transcript.text, transcript.is_speech) == ("", False)
    assert REGISTRY.loaded() == []


def test_a_real_sound_file_goes_through_media(recognizer):
    audio = load(Media.from_path(SOUNDS / "dog.ogg"))
    samples = audio.samples.mean(axis=0)
    transcript = recognizer.transcribe(samples, audio.rate_hz)
    check_times(transcript, audio.duration_s)
    assert transcript.is_speech == bool(transcript.text)


def test_the_language_can_be_given(recognizer):
    sound = tones(["middle", "high"], 3)
    assert recognizer.transcribe(sound, RATE_HZ, language="EN").language == "en"
    with pytest.raises(ConfigurationError, match=r"'xx'.*de, en"):
        recognizer.transcribe(sound, RATE_HZ, language="xx")


@pytest.mark.parametrize(
    ("samples", "rate_hz", "match"),
    [
        (np.zeros((2, 100), np.float32), RATE_HZ, "mean"),
        (np.zeros(0, np.float32), RATE_HZ, "mono"),
        (np.zeros(100, np.int16), RATE_HZ, "int16"),
        (np.zeros(100, np.float32), 10, "10 Hz"),
        (np.zeros(3_700_000, np.float32), 1000, "3600 s"),
        (np.full(100, np.nan, np.float32), RATE_HZ, "NaN"),
    ],
)
def test_what_is_no_sound_is_refused(recognizer, samples, rate_hz, match):
    with pytest.raises(MediaError, match=match):
        recognizer.transcribe(samples, rate_hz)
    assert REGISTRY.loaded() == []


def test_missing_and_wrong_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="no folder here"):
        open_recognizer("./nowhere/at/all")
    detector = expert_models.owlv2(tmp_path / "owl")
    with pytest.raises(CheckpointError, match="owl"):
        open_recognizer(detector, device="cpu").transcribe(hiss(), RATE_HZ)


def heard(text, no_speech=0.0, logprob=-0.1, span_s=(0.0, 1.0)):
    return Heard(make_segment(text, span_s, [], no_speech, 2.0), logprob)


@pytest.mark.parametrize(
    ("one", "believed"),
    [
        (heard("a dog barks"), True),
        (heard("a dog barks", no_speech=0.7), True),  # surely heard
        (heard("a dog barks", no_speech=0.7, logprob=-0.6), False),
        (heard("Thanks for watching!", no_speech=0.95), False),
        (heard("a dog barks", logprob=-1.2), False),
        (heard("la la la la la la la la la la la la la la la la la la la"), False),
        (heard("♪ ..."), False),
        (heard("a dog barks", span_s=(1.2, 1.9)), False),  # nothing sounds there
    ],
)
def test_which_words_are_believed(one, believed):
    sound = np.concatenate([hiss(length_s=1), np.zeros(RATE_HZ, np.float32)])
    assert is_believed(one, sound) is believed


def test_a_checkpoint_may_want_surer_words():
    limits = Limits(no_speech=0.1, logprob=-0.5)
    sound = hiss(length_s=2)
    assert is_believed(heard("a dog barks"), sound, limits)
    for doubtful in (heard("a dog barks", no_speech=0.2), heard("a dog barks", logprob=-0.6)):
        assert is_believed(doubtful, sound)
        assert not is_believed(doubtful, sound, limits)


def test_loudness_is_measured_in_db_of_full_scale():
    time_s = np.arange(RATE_HZ) / RATE_HZ
    full = np.sin(2 * np.pi * 500 * time_s).astype(np.float32)
    assert loudness_db(full) == pytest.approx(-3.01, abs=0.05)
    assert loudness_db(full / 10) == pytest.approx(-23.01, abs=0.05)
    assert is_silent(full / 2000)
    assert not is_silent(full / 100)


def test_tokens_become_words():
    pieces = {1: " A", 2: " dog", 3: "gy", 4: ".", 5: "你", 6: "好", 7: "�", 8: "�"}

    def decode(ids):
        if ids == [7, 8]:
            return " é"
        return "".join(pieces[i] for i in ids)

    words = to_words([1, 2, 3, 4, 7, 8], [0.1, 0.3, 0.5, 0.6, 0.7, 0.9], 0.0, decode, "en")
    assert [(word.text, word.start_s, word.end_s) for word in words] == [
        ("A", 0.0, 0.1),
        ("doggy.", 0.1, 0.6),
        ("é", 0.6, 0.9),
    ]
    chinese = to_words([5, 6, 4], [0.2, 0.4, 0.5], 0.0, decode, "zh")
    assert [word.text for word in chinese] == ["你", "好."]


@pytest.mark.skipif(find_spec("whisper") is not None, reason="openai-whisper is installed here")
@pytest.mark.parametrize("name", ["tiny.en", "some.pt"])
def test_openai_whisper_without_its_extra_says_how_to_get_it(name):
    with pytest.raises(MissingExtraError, match=r"pip install 'ibllm-tools\[speech\]'"):
        open_recognizer(name)
