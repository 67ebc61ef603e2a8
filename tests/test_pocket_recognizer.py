"""The recognizer that ships: real voices that it never heard, real sounds, and its recipe."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest

from ibllm_tools.attachments import AttachmentStore
from ibllm_tools.cli import app
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.evaluate import Scorecard, as_table
from ibllm_tools.evaluate.digits import N_LONG, evaluate_digits, held_out_speakers, n_errors
from ibllm_tools.experts import (
    draw_transcript,
    has_recognizer,
    open_recognizer,
    unload_experts,
)
from ibllm_tools.experts.checkpoints import POCKET_RECOGNIZER, shipped_folder
from ibllm_tools.experts.results import Transcript
from ibllm_tools.media import Media, load
from ibllm_tools.toolkit import ImageBindLLMToolkit
from ibllm_tools.train.digits_sounds import DIGITS, RATE_HZ, Noise, Spoken, chords, decode

MEDIA = Path(__file__).parent / "media"
DEMO = Path(__file__).parents[1] / "ibllm_tools" / "demo_media"
HELD_OUT = "theo"
VOICE = {int(path.stem[1]): path for path in sorted(MEDIA.glob(f"d*_{HELD_OUT}_*.flac"))}


@pytest.fixture(scope="module", autouse=True)
def _unload():
    yield
    unload_experts()


@pytest.fixture(scope="module")
def recognizer():
    return open_recognizer(device="cpu")


def say(digits, pause_s=0.3, lead_s=0.4, gain=0.8):
    """Put recordings of the held-out speaker in a row; returns the sound and when words are."""
    parts, spoken, at = [np.zeros(int(lead_s * RATE_HZ), np.float32)], [], lead_s
    for digit in digits:
        wave = decode(VOICE[digit].read_bytes())
        wave = gain * wave / np.abs(wave).max()
        spoken.append(Spoken(digit, at, at + wave.size / RATE_HZ))
        parts += [wave, np.zeros(int(pause_s * RATE_HZ), np.float32)]
        at += wave.size / RATE_HZ + pause_s
    sound = np.concatenate(parts)
    sound += np.float32(0.002) * np.random.default_rng(0).standard_normal(sound.size)
    return sound.astype(np.float32), spoken


def words_of(transcript):
    return [word for segment in transcript.segments for word in segment.words]


# --- what it hears ------------------------------------------------------------------------------


def test_it_is_the_default_and_small_and_says_whom_it_never_heard():
    assert has_recognizer()
    folder = shipped_folder(POCKET_RECOGNIZER)
    assert (folder / "README.md").is_file()
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) < 4e6
    assert HELD_OUT in held_out_speakers(POCKET_RECOGNIZER)
    assert held_out_speakers("base") == held_out_speakers("openai/whisper-base") == ()


def test_a_voice_that_it_never_heard_is_written_down_word_by_word(recognizer):
    digits = sorted(VOICE)
    rng = random.Random(1)
    n_wrong = n_said = 0
    shifts_s = []
    for size in (1, 2, 3, 4, 5, 6):
        said = [rng.choice(digits) for _ in range(size)]
        sound, spoken = say(said, pause_s=rng.uniform(0.15, 0.5))
        transcript = recognizer.transcribe(sound, RATE_HZ)
        assert transcript.is_speech
        assert (transcript.language, transcript.model) == ("en", POCKET_RECOGNIZER)
        wrong = n_errors([DIGITS[digit] for digit in said], transcript.text.split())
        n_wrong, n_said = n_wrong + wrong, n_said + size
        if not wrong:
            for word, truth in zip(words_of(transcript), spoken, strict=True):
                shifts_s += [abs(word.start_s - truth.start_s), abs(word.end_s - truth.end_s)]
    assert n_wrong / n_said <= 0.15
    assert np.mean(np.array(shifts_s) <= 0.25) >= 0.9


def test_twenty_seconds_are_heard_window_by_window(recognizer):
    digits = (sorted(VOICE) * 4)[:18]
    sound, spoken = say(digits, pause_s=0.8)
    assert sound.size > 18 * RATE_HZ
    transcript = recognizer.transcribe(sound, RATE_HZ)
    said = [DIGITS[digit] for digit in digits]
    assert n_errors(said, transcript.text.split()) <= 3
    assert len(transcript.segments) >= 4
    heard = words_of(transcript)
    assert [word.start_s for word in heard] == sorted(word.start_s for word in heard)
    assert abs(heard[-1].end_s - spoken[-1].end_s) <= 0.25


def test_the_rate_and_loudness_of_a_sound_are_no_matter(recognizer):
    sound, _ = say((7, 4, 2))
    text = recognizer.transcribe(sound, RATE_HZ).text
    assert recognizer.transcribe(sound[::2].copy(), RATE_HZ // 2).text == text
    assert recognizer.transcribe(sound / 8, RATE_HZ).text == text


@pytest.mark.parametrize("name", ["dog.ogg", "sea.ogg", "helicopter.ogg"])
def test_sounds_of_things_have_no_words(recognizer, name):
    audio = load(Media.from_path(DEMO / name))
    transcript = recognizer.transcribe(audio.samples.mean(axis=0), audio.rate_hz)
    assert (transcript.text, transcript.is_speech, transcript.segments) == ("", False, [])


def test_silence_noise_and_music_have_no_words(recognizer):
    rng = np.random.default_rng(4)
    noise = Noise(9, 8)
    sounds = [np.zeros(2 * RATE_HZ, np.float32)]
    sounds += [noise.draw(rng, 3 * RATE_HZ) * np.float32(0.05) for _ in range(4)]
    sounds += [chords(rng, 3 * RATE_HZ) * np.float32(0.1) for _ in range(3)]
    flags = [recognizer.transcribe(np.clip(sound, -1, 1), RATE_HZ).is_speech for sound in sounds]
    assert sum(flags) <= 1
    assert not flags[0]


def test_words_are_drawn_below_the_wave(recognizer):
    sound, _ = say((7, 4, 2))
    picture = draw_transcript(sound, RATE_HZ, recognizer.transcribe(sound, RATE_HZ))
    bare = draw_transcript(sound, RATE_HZ, recognizer.transcribe(0 * sound, RATE_HZ))
    assert picture.size == bare.size
    assert np.abs(np.asarray(picture, int) - np.asarray(bare, int)).mean() > 0.5


# --- how others use it --------------------------------------------------------------------------


def test_the_toolkit_offers_it_and_an_agent_gets_the_words(tmp_path):
    store = AttachmentStore(tmp_path)
    store.add(Media.from_path(DEMO / "digits.flac"))
    store.add(Media.from_path(DEMO / "dog.ogg"))
    store.add(Media.from_array(np.zeros(8000), "audio", rate_hz=8000))
    tools = {tool.name: tool for tool in ImageBindLLMToolkit(attachments=store).get_tools()}

    def ask(name):
        call = {"name": "transcribe_speech", "args": {"audio": name}, "id": "1"}
        return tools["transcribe_speech"].invoke(call | {"type": "tool_call"})

    assert "digits only" in tools["transcribe_speech"].description
    spoken = ask("audio-1")
    assert "seven four two" in spoken.content
    assert spoken.artifact["is_speech"]
    for name in ("audio-2", "audio-3"):
        silent = ask(name)
        assert silent.artifact["text"] == ""
        assert silent.artifact["is_speech"] is False


def test_stock_transformers_reads_it():
    from transformers import pipeline

    folder = str(shipped_folder(POCKET_RECOGNIZER))
    hear = pipeline("automatic-speech-recognition", model=folder, device="cpu")
    sound = decode((DEMO / "digits.flac").read_bytes())
    found = hear({"raw": sound, "sampling_rate": RATE_HZ}, return_timestamps="word")
    assert found["text"].split() == ["seven", "four", "two"]
    assert len(found["chunks"]) == 3


def test_without_its_weights_the_next_step_is_told(monkeypatch, tmp_path):
    from ibllm_tools.experts import checkpoints

    monkeypatch.setattr(checkpoints, "shipped_folder", lambda name: tmp_path / name)
    assert not has_recognizer()
    with pytest.raises(CheckpointError, match="reinstall"):
        open_recognizer()


# --- the recipe and its figures -----------------------------------------------------------------


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """A pack of two speakers and three sounds."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    import small_pack

    folder = tmp_path_factory.mktemp("digits") / "pack"
    folder.mkdir()
    blobs = {digit: path.read_bytes() for digit, path in VOICE.items()}
    rows = [
        {"id": f"{speaker}-{digit}", "digit": digit, "speaker": speaker, "split": "train",
         "flac": blob}
        for speaker in ("one", HELD_OUT) for digit, blob in blobs.items()
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "speech_digits.parquet")
    sounds = [small_pack.sound(name) for name in small_pack.SOUNDS]
    for split in ("train", "val"):
        small_pack.table(folder, "sounds", "ogg", sounds, split)
        if split == "train":
            (folder / "sounds.parquet").rename(folder / "train.parquet")
    frame = pd.concat([pd.read_parquet(folder / f"{n}.parquet") for n in ("train", "sounds")])
    frame["subtype"], frame["group"] = "", frame.id
    frame.to_parquet(folder / "sounds.parquet")
    concepts = [
        {"id": i, "name_en": en, "name_zh": zh}
        for i, (en, zh) in enumerate(small_pack.CONCEPTS.items())
    ]
    (folder / "concepts.json").write_text(json.dumps(concepts), encoding="utf-8")
    return folder


def tiny_options(steps, held_out=(HELD_OUT,)):
    from ibllm_tools.train.digits import DigitsOptions
    from ibllm_tools.train.digits_whisper import WhisperSizes
    from ibllm_tools.train.loop import Schedule

    return DigitsOptions(
        seed=3,
        held_out=held_out,
        sizes=WhisperSizes(d_model=32, heads=2, encoder_layers=1),
        schedule=Schedule(steps, 1e-3, 1, save_every=1, muon_lr=0.01),
        batch=4,
    )


def test_a_stopped_run_goes_on_to_the_same_weights(pack, tmp_path):
    from safetensors.torch import load_file

    from ibllm_tools.train import digits
    from ibllm_tools.train.loop import _save

    options = tiny_options(3)
    whole = digits.train_digits(pack, tmp_path / "a", tmp_path / "a-work", options=options)

    def die(path, modules, optimizer, step):
        _save(path, modules, optimizer, step)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ibllm_tools.train.loop._save", die)
        with pytest.raises(KeyboardInterrupt):
            digits.train_digits(pack, tmp_path / "b", tmp_path / "b-work", options=options)
    again = digits.train_digits(pack, tmp_path / "b", tmp_path / "b-work", options=options)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert set(first) == set(second)
    assert all((first[name] == second[name]).all() for name in first)
    assert held_out_speakers(str(whole)) == (HELD_OUT,)
    assert open_recognizer(str(whole), device="cpu").transcribe(say((7,))[0], RATE_HZ)


@pytest.mark.parametrize("held_out", [("nobody",), ("one", HELD_OUT)])
def test_speakers_that_cannot_be_held_out_are_named(pack, tmp_path, held_out):
    from ibllm_tools.train.digits import train_digits

    with pytest.raises(ConfigurationError, match=f"one, {HELD_OUT}"):
        train_digits(pack, tmp_path, tmp_path, options=tiny_options(1, held_out))


def test_what_the_model_should_write():
    from ibllm_tools.train.digits_whisper import Targets, build_tokenizer

    tokenizer = build_tokenizer()
    targets = Targets(tokenizer)
    spoken = [Spoken(7, 0.2, 0.6), Spoken(4, 0.9, 1.2)]

    def read(target):
        said = [target.inputs[1], *target.labels[1:]]
        return tokenizer.decode(said, decode_with_timestamps=True)

    assert read(targets.words_of(spoken, None, True)) == (
        "<|0.20|> seven four<|1.20|><|endoftext|>"
    )
    assert read(targets.words_of(spoken, 4.7, True)) == (
        "<|0.20|> seven four<|1.20|><|4.70|><|endoftext|>"
    )
    assert read(targets.words_of([], 4.7, True)) == "<|4.70|><|endoftext|>"
    plain = targets.words_of(spoken, 4.7, False)
    assert read(plain) == "<|notimestamps|> seven four<|endoftext|>"
    assert plain.spans[1:3] == [(10, 30), (45, 60)]
    silent = targets.nothing(random.Random(0), False)
    assert tokenizer.decode(silent.labels[:1]) == "<|nospeech|>"


@pytest.mark.parametrize(
    ("said", "heard", "n"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a", "b a b", 2), ("", "a", 1), ("a b", "", 2)],
)
def test_word_errors_are_counted(said, heard, n):
    assert n_errors(said.split(), heard.split()) == n


def test_eval_digits_tells_words_times_and_silence(pack, tmp_path):
    from rich.console import Console
    from typer.testing import CliRunner

    arguments = ["eval", "digits", "--data", str(pack), "--limit", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, [*arguments, "--work", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    card = Scorecard.from_json(done.stdout)
    new, known, long = card.section("words").measures
    assert new.name == f"wer.{HELD_OUT}"
    assert new.mark == "met"
    assert (known.mark, known.note) == ("no target", new.note)
    assert long.note == f"{N_LONG} words"
    assert card.section("times").find("near").value > 0.8
    assert card.section("nothing").find("silence").value == 1
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(as_table(card))
    assert f"{HELD_OUT}, never heard before" in console.export_text()


def test_a_recognizer_that_invents_words_is_found_out(pack, tmp_path, monkeypatch):
    """The figures are of what is heard: words for silence and wrong words count."""
    invented = Transcript(text="one one", language="en", segments=[], is_speech=True, model="own")
    kind = type(open_recognizer(device="cpu"))
    monkeypatch.setattr(kind, "transcribe", lambda *_: invented)
    card = evaluate_digits(pack, limit=2, work_dir=tmp_path)
    figures = [measure.value for measure in card.section("nothing").measures if measure.n]
    assert len(figures) >= 4
    assert not any(figures)
    assert all(measure.value > 0.5 for measure in card.section("words").measures)
    assert card.section("words").find("wer.long").mark == "missed"
