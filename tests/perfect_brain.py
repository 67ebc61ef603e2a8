"""A brain that routes right and reads results right, and experts that find what is there.

The recognizer really listens: digits are tones. The detector looks its pictures up.
"""

import re
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from ibllm_tools.experts import Detection, Detections, Segment, Transcript
from ibllm_tools.media import load
from ibllm_tools.routing import ANSWER_PROMPT, PLAIN_PROMPT

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE_HZ = 8000
HZ = [300 * 1.22**digit for digit in range(10)]


def tone(digit, seconds=0.4):
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (0.4 * np.sin(2 * np.pi * HZ[digit] * time_s)).astype(np.float32)


class ToneRecognizer:
    """Hears a tone as a digit, and all else as no speech."""

    def transcribe(self, samples, rate_hz, language=None):
        words = [word for part in _parts(samples, rate_hz) if (word := _digit(part, rate_hz))]
        text = " ".join(words)
        length = len(samples) / rate_hz
        segments = [Segment(text=text, start_s=0, end_s=length, no_speech=0)] if words else []
        return Transcript(
            text=text, language="en", segments=segments, is_speech=bool(words), model="tones"
        )


def _parts(samples, rate_hz):
    """Stretches between silences of at least 50 ms."""
    quiet = np.convolve(np.abs(samples), np.ones(rate_hz // 20), "same") < 1e-3 * rate_hz / 20
    edges = np.flatnonzero(np.diff(quiet.astype(int)))
    parts = np.split(samples, edges + 1)
    return [part for part in parts if len(part) > rate_hz // 10 and np.abs(part).max() > 0.01]


def _digit(part, rate_hz):
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
    hz = np.fft.rfftfreq(len(part), 1 / rate_hz)
    peak = hz[power.argmax()]
    near = power[np.abs(hz - peak) < 20].sum() / power.sum()
    distances = np.abs(np.log(np.array(HZ) / max(peak, 1)))
    return DIGITS[distances.argmin()] if near > 0.9 and distances.min() < 0.09 else ""


class TrueDetector:
    """Finds what the scenes of some tasks were composed of."""

    def __init__(self, tasks, classes):
        self.known = {_key(load(s.media).pixels): s.boxes for task in tasks for s in task.scenes}
        self._classes = tuple(classes)

    def classes(self):
        return self._classes

    def detect(self, image, labels=None, threshold=None):
        found = [
            Detection(label=name, score=0.9, box=box)
            for name, box in self.known.get(_key(image), ())
        ]
        return Detections(
            detections=found, width_px=image.width, height_px=image.height, model="truth"
        )


def _key(image):
    return image.convert("RGB").tobytes()


class PerfectBrain(BaseChatModel):
    """Knows the right route of the task on its desk; of results it reads what they say, no more."""

    desk: Any
    wants_route: bool = False
    profile: Any = {"image_inputs": True, "audio_inputs": True, "video_inputs": True}  # noqa: RUF012

    @property
    def _llm_type(self):
        return "perfect"

    def bind_tools(self, tools, **kwargs):
        return PerfectBrain(desk=self.desk, wants_route=True)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self._say(messages))])

    def _say(self, messages):
        told = messages[0].text
        [task] = self.desk
        assert messages[-1].text.startswith(task.question)
        if self.wants_route:
            call = {"name": "Route", "args": {"experts": list(task.route)}, "id": "1"}
            return AIMessage("", tool_calls=[call])
        if told == ANSWER_PROMPT:
            return AIMessage(read(messages[-1].text.split("\n")[2:]))
        if told == PLAIN_PROMPT:
            return AIMessage(task.expected.words[0][0])
        assert len(messages[-1].content) > 1, "a question to the senses comes with media"
        return AIMessage(_sensed(task))


def _sensed(task):
    if task.expected.verdict is not None:
        return "Yes, it is." if task.expected.verdict else "No, it is not."
    return f"This is a {task.expected.words[0][0]}."


def read(lines):
    """An answer that says what the lines say, with what follows from them."""
    said = [re.split(r": |：", line, maxsplit=1)[1] for line in lines]
    text = " ".join(said)
    if lines[0].startswith("similarity to") or "的相似度" in lines[0]:
        return text.split(" ")[0]
    return text
