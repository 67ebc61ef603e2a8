"""Transcriptions: recordings uploaded by the `openai` package, written down by a tiny Whisper."""

import io
import wave

import numpy as np
import pytest
from expert_models import RATE_HZ, hiss, tones, whisper
from serving_server import get, post, serving
from tiny_model import save_tiny_model

openai = pytest.importorskip("openai", reason="the openai package is the client")

pytestmark = pytest.mark.enable_socket

WORDS = ["middle", "high", "middle"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    model = save_tiny_model(tmp_path_factory.mktemp("model"))
    recognizer = whisper(tmp_path_factory.mktemp("whisper"))
    with serving(models={"tiny": str(model)}, recognizer=recognizer) as found:
        yield found


@pytest.fixture(scope="module")
def transcribe(address):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)

    def asked(sound, **options):
        options = {"model": "whisper-1", "file": ("said.wav", wav(sound)), **options}
        return client.audio.transcriptions.create(**options)

    with client:
        yield asked


def wav(sound):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((np.asarray(sound) * 32767).astype(np.int16).tobytes())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sound():
    return tones(WORDS, seed=1001)


def test_json_and_text(transcribe, sound):
    found = transcribe(sound)
    assert found.text == " ".join(WORDS)
    assert (found.usage.type, found.usage.seconds) == ("duration", 2)
    assert transcribe(sound, response_format="text") == f"{found.text}\n"


def test_verbose_json(transcribe, sound):
    found = transcribe(sound, response_format="verbose_json")
    assert found.language == "english"
    assert found.duration == 2.0
    assert found.words is None
    [segment] = found.segments
    assert segment.text == found.text == " ".join(WORDS)
    assert 0 <= segment.start < segment.end <= 2
    assert 0 <= segment.no_speech_prob < 0.5
    options = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    found = transcribe(sound, **options)
    assert [word.word for word in found.words] == WORDS
    assert found.segments is None
    both = transcribe(sound, **{**options, "timestamp_granularities": ["word", "segment"]})
    assert both.words
    assert both.segments


def test_subtitles(transcribe, sound):
    srt = transcribe(sound, response_format="srt").splitlines()
    assert srt[0] == "1"
    assert srt[1].startswith("00:00:00,") or srt[1].startswith("00:00:01,")
    assert srt[2] == " ".join(WORDS)
    vtt = transcribe(sound, response_format="vtt").splitlines()
    assert vtt[0] == "WEBVTT"
    assert vtt[2] == srt[1].replace(",", ".")


def test_a_language_may_be_told(transcribe, sound):
    found = transcribe(sound, response_format="verbose_json", language="de")
    assert found.language == "german"
    with pytest.raises(openai.BadRequestError, match="language"):
        transcribe(sound, language="tlh")


def test_noise_has_no_words(transcribe):
    found = transcribe(hiss(seed=7), response_format="verbose_json")
    assert found.text == ""
    assert found.segments == []


@pytest.mark.parametrize("data", [b"", b"no sound at all", wav([0.1])[:40]], ids=len)
def test_what_is_no_recording_is_a_bad_request(transcribe, data):
    with pytest.raises(openai.BadRequestError) as caught:
        transcribe([], file=("said.wav", data))
    assert caught.value.param == "file"


def test_only_known_models_and_forms(transcribe, sound, address):
    with pytest.raises(openai.NotFoundError):
        transcribe(sound, model="other")
    with pytest.raises(openai.BadRequestError, match="response_format"):
        transcribe(sound, response_format="poem")
    assert {"whisper-1", "tiny"} == {m["id"] for m in get(f"{address}/v1/models").json()["data"]}


def test_a_field_that_is_a_path_opens_nothing(address):
    form = {"model": "whisper-1", "file": "/etc/hostname"}
    reply = post(f"{address}/v1/audio/transcriptions", data=form)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "file"
