"""A video whose seconds show different things, with tones for words; and who understands tones."""

import tempfile
from pathlib import Path

import av
import numpy as np
from expert_models import RATE_HZ, SLOTS_S, TONE_S, WORDS, tones

from ibllm_tools import Media
from ibllm_tools.experts import Segment, Transcript, Word

FPS = 10


def tone_video(seconds, words=()):
    """A `Media`: each second shows its list of squares; tones say the words in the first 2 s."""
    from colour_detector import squares_picture

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tones.mp4"
        with av.open(str(path), "w") as output:
            video = output.add_stream("mpeg4", rate=FPS)
            video.width, video.height, video.pix_fmt = 160, 48, "yuv420p"
            video.bit_rate = 2_000_000
            sound = output.add_stream("aac", rate=RATE_HZ, layout="mono") if words else None
            for labels in seconds:
                frame = av.VideoFrame.from_ndarray(squares_picture(labels, (160, 48)), "rgb24")
                for _ in range(FPS):
                    output.mux(video.encode(frame))
            output.mux(video.encode())
            if sound is not None:
                samples = np.zeros(len(seconds) * RATE_HZ, np.float32)
                spoken = tones(words)[: samples.size]
                samples[: spoken.size] = spoken
                frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
                frame.sample_rate = RATE_HZ
                output.mux(sound.encode(frame))
                output.mux(sound.encode())
        return Media.from_path(path)


class ToneRecognizer:
    """Understands the tones of `expert_models.tones` by their spectrum."""

    def transcribe(self, samples, rate_hz, language=None):
        words = []
        for start_s in SLOTS_S:
            part = samples[round(start_s * rate_hz) : round((start_s + TONE_S) * rate_hz)]
            if part.size and np.abs(part).max() > 0.1:
                spectrum = np.abs(np.fft.rfft(part))
                hz = spectrum.argmax() * rate_hz / part.size
                word = min(WORDS, key=lambda name: abs(np.log(WORDS[name] / max(hz, 1))))
                words.append(Word(text=word, start_s=start_s, end_s=start_s + TONE_S))
        text = " ".join(word.text for word in words)
        spans = {"start_s": words[0].start_s, "end_s": words[-1].end_s} if words else {}
        segments = [Segment(text=text, words=words, no_speech=0.0, **spans)] if words else []
        return Transcript(
            text=text,
            language="en" if words else None,
            segments=segments,
            is_speech=bool(words),
            model="tones",
        )
