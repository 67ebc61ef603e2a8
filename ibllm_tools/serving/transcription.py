"""`/v1/audio/transcriptions`: what is said in a recording, in OpenAI's forms."""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any, Literal

from ibllm_tools.experts import open_recognizer
from ibllm_tools.media import Audio, load

if TYPE_CHECKING:
    from collections.abc import Collection

    from ibllm_tools.experts import Segment, Transcript
    from ibllm_tools.serving.settings import ServeSettings

ReplyForm = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]

OPENAI_NAME = "whisper-1"
_SUBTITLE = {"srt": ",", "vtt": "."}


class Listener:
    """The recognizer; it opens at its first use."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings

    def transcribe(self, data: bytes, name: str, language: str | None) -> tuple[Transcript, float]:
        """Write down what is said; takes a while, so call it in a thread.

        Args:
            data: A sound file, or a video with sound.
            name: What errors call it.
            language: Code such as "en"; None lets the model tell.

        Returns:
            What is said, and the length of the sound in seconds.

        Raises:
            MediaError: It is no sound, or longer or larger than the policy allows.
            CheckpointError: The recognizer's checkpoint is not here.
            ConfigurationError: The recognizer does not know the language.
        """
        block = {"type": "audio", "base64": data, "extras": {"name": name}}
        sound = load(block, self._settings.policy)
        assert isinstance(sound, Audio)
        own = self._settings
        recognizer = open_recognizer(own.recognizer, own.device, None)
        mono = sound.samples.mean(0)
        return recognizer.transcribe(mono, sound.rate_hz, language), sound.duration_s


def written(
    found: Transcript, length_s: float, form: ReplyForm, granularities: Collection[Granularity]
) -> tuple[str, str]:
    """Write a transcript in one of OpenAI's forms; returns the text and its media type."""
    if form == "text":
        return f"{found.text}\n", "text/plain; charset=utf-8"
    if form == "srt":
        return _subtitles(found, form), "text/plain; charset=utf-8"
    if form == "vtt":
        return f"WEBVTT\n\n{_subtitles(found, form)}", "text/vtt; charset=utf-8"
    usage = {"type": "duration", "seconds": math.ceil(length_s)}
    reply: dict[str, Any] = {"text": found.text, "usage": usage}
    if form == "verbose_json":
        reply = {**_verbose(found, length_s, granularities), "usage": usage}
    return json.dumps(reply, ensure_ascii=False), "application/json"


def _verbose(
    found: Transcript, length_s: float, granularities: Collection[Granularity]
) -> dict[str, Any]:
    reply: dict[str, Any] = {
        "task": "transcribe",
        "language": _language_name(found.language),
        "duration": length_s,
        "text": found.text,
    }
    if "segment" in granularities or not granularities:
        reply["segments"] = [_segment(i, segment) for i, segment in enumerate(found.segments)]
    if "word" in granularities:
        reply["words"] = [
            {"word": word.text, "start": word.start_s, "end": word.end_s}
            for segment in found.segments
            for word in segment.words
        ]
    return reply


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """A segment; what recognizers do not tell (tokens, their probability) is null or empty."""
    text = segment.text.encode()
    return {
        "id": number,
        "seek": round(segment.start_s * 100),
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": None,
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": segment.no_speech,
    }


def _language_name(code: str | None) -> str:
    """A language as OpenAI names it, such as "english"; the code itself where it has no name."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return str(LANGUAGES.get(code, code)) if code else "unknown"


def _subtitles(found: Transcript, form: str) -> str:
    lines = []
    for number, segment in enumerate(found.segments, 1):
        span = f"{_clock(segment.start_s, form)} --> {_clock(segment.end_s, form)}"
        head = f"{number}\n" if form == "srt" else ""
        lines.append(f"{head}{span}\n{segment.text}\n\n")
    return "".join(lines)


def _clock(seconds: float, form: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    mark = _SUBTITLE[form]
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
