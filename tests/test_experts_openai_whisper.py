"""openai-whisper on a checkpoint with random weights: threads, silence, what it refuses."""

from concurrent.futures import ThreadPoolExecutor

import expert_models
import numpy as np
import pytest
from expert_models import RATE_HZ, hiss

from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.experts import open_recognizer, openai_speech, unload_experts
from ibllm_tools.experts.registry import REGISTRY

whisper = pytest.importorskip("whisper", reason="the extra [speech] is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return expert_models.openai_whisper(tmp_path_factory.mktemp("openai") / "tiny.pt")


@pytest.fixture(autouse=True)
def _unload():
    unload_experts()
    yield
    unload_experts()


@pytest.fixture
def short_answers(monkeypatch):
    """Let random weights stop after a few tokens: they would go on for hundreds."""
    transcribe = whisper.model.Whisper.transcribe
    monkeypatch.setattr(
        whisper.model.Whisper,
        "transcribe",
        lambda self, sound, **options: transcribe(self, sound, sample_len=8, **options),
    )


def test_threads_share_one_load_and_hear_what_one_hears(checkpoint, short_answers, monkeypatch):
    # Random weights' words are never believed: look at what the model gave.
    heard, judge = [], openai_speech.to_transcript
    monkeypatch.setattr(
        openai_speech,
        "to_transcript",
        lambda found, *rest: heard.append(found) or judge(found, *rest),
    )
    recognizer = open_recognizer(checkpoint, device="cpu")
    sounds = [hiss(seed, length_s=1) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda s: recognizer.transcribe(s, RATE_HZ, "en"), sounds))
    given, heard[:] = list(heard), []
    alone = [recognizer.transcribe(sound, RATE_HZ, "en") for sound in sounds]
    assert together == alone
    assert sorted(map(str, given)) == sorted(map(str, heard))
    assert [key.backend for key in REGISTRY.loaded()] == ["openai-whisper"]
    for transcript in alone:
        assert transcript.is_speech == bool(transcript.segments)


def test_silence_loads_nothing(checkpoint):
    transcript = open_recognizer(checkpoint, device="cpu").transcribe(
        np.zeros(RATE_HZ, np.float32), RATE_HZ
    )
    assert (transcript.text, transcript.is_speech) == ("", False)
    assert REGISTRY.loaded() == []


def test_what_it_refuses(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        open_recognizer(str(tmp_path / "missing.pt"))
    with pytest.raises(ConfigurationError, match="float16"):
        open_recognizer(checkpoint, device="cpu", dtype="bfloat16")
    with pytest.raises(ConfigurationError, match="'xx'"):
        open_recognizer(checkpoint, device="cpu").transcribe(hiss(length_s=1), RATE_HZ, "xx")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK no zip")
    with pytest.raises(CheckpointError, match=r"broken\.pt"):
        open_recognizer(str(broken), device="cpu").transcribe(hiss(length_s=1), RATE_HZ)
