"""Speech to text by openai-whisper, the original package (MIT), behind the extra `[speech]`.

It takes a `.pt` file of OpenAI's format, or one of its model names, which it downloads once. It
keeps state on the model while it listens, so that two threads at once give wrong texts: the
registry lets one in at a time. It gets samples, never a path, so that no ffmpeg is needed.
"""

from __future__ import annotations

import re
import warnings
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError, MissingExtraError
from ibllm_tools.experts.checkpoints import find_file, loading, module_bytes, stored_bytes
from ibllm_tools.experts.hearing import Heard, is_silent, make_segment, to_transcript
from ibllm_tools.experts.inputs import check_sound, to_model_rate
from ibllm_tools.experts.registry import REGISTRY, ExpertKey, Loaded, Registry
from ibllm_tools.experts.results import Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibllm_tools.experts.results import Transcript

NAMES = re.compile(r"((tiny|base|small|medium)(\.en)?|large(-v[123])?|(large-v3-)?turbo)")


def is_openai_checkpoint(checkpoint: str) -> bool:
    """Tell whether this is a file of OpenAI's format or one of its model names."""
    return checkpoint.endswith(".pt") or NAMES.fullmatch(checkpoint) is not None


class OpenAIRecognizer:
    """A Whisper model run by openai-whisper; its weights load at the first sound.

    Args:
        checkpoint: A `.pt` file, or a name such as "base" or "turbo".
        device: As in torch; by default an accelerator where there is one.
        dtype: "float32", or "float16" on an accelerator; by default float32 on a CPU, else
            float16, which is all that the package offers.
        registry: Where the loaded model is kept.

    Raises:
        MissingExtraError: openai-whisper is not installed.
        CheckpointError: There is no such file.
        ConfigurationError: There is no such device or dtype.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str | None = None,
        dtype: str | None = None,
        registry: Registry = REGISTRY,
    ) -> None:
        if find_spec("whisper") is None:
            raise MissingExtraError("openai-whisper", "speech")
        from ibllm_tools.engine import Placement

        self.checkpoint = checkpoint
        is_name = NAMES.fullmatch(checkpoint) is not None
        self._source = checkpoint if is_name else find_file(checkpoint, "a Whisper `.pt` file")
        self._device = str(Placement.choose(device, None).device)
        self._half = _is_half(dtype, self._device)
        self._registry = registry
        kind = "float16" if self._half else "float32"
        self.key = ExpertKey(self._source, self._device, kind, "openai-whisper")

    def transcribe(
        self, samples: NDArray[np.float32], rate_hz: int, language: str | None = None
    ) -> Transcript:
        """Write down what is said; see `protocols.Recognizer`."""
        sound = to_model_rate(check_sound(samples, rate_hz), rate_hz)
        if is_silent(sound):
            return to_transcript([], sound, None, self.checkpoint)
        with self._use() as model:
            code = _check_language(language, model)
            answer = self._listen(model, sound, code)
        length_s = len(sound) / 16_000
        heard = [_to_heard(segment, length_s) for segment in answer["segments"]]
        return to_transcript(heard, sound, answer["language"], self.checkpoint)

    def _listen(self, model: Any, sound: NDArray[np.float32], language: str | None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints on Triton kernels, and on CPUs beside a GPU
            # Greedy, since its fallback draws at random. Segments are judged in `hearing`.
            return model.transcribe(
                sound,
                language=language,
                temperature=0.0,
                word_timestamps=True,
                condition_on_previous_text=False,
                fp16=self._half,
                verbose=None,
            )

    def _use(self) -> AbstractContextManager[Any]:
        return self._registry.use(self.key, self._load, stored_bytes(self._source))

    def _load(self) -> Loaded:
        import whisper

        with loading(self.checkpoint, "a Whisper model of openai-whisper"):
            # The package reads its files with weights_only=True.
            model = whisper.load_model(self._source, device=self._device)
        model = model.eval()
        return Loaded(model, module_bytes(model))


def _is_half(dtype: str | None, device: str) -> bool:
    is_cpu = device.startswith("cpu")
    name = (dtype or ("float32" if is_cpu else "float16")).removeprefix("torch.")
    if name not in {"float32", "float16"} or (is_cpu and name == "float16"):
        raise ConfigurationError(
            f"dtype: found {dtype!r} on {device}, expected float32, or float16 on an accelerator; "
            "openai-whisper knows no other"
        )
    return name == "float16"


def _check_language(language: str | None, model: Any) -> str | None:
    if language is None:
        return None
    from whisper.tokenizer import LANGUAGES

    code = language.strip().lower()
    known = LANGUAGES if model.is_multilingual else {"en": "english"}
    if code not in known:
        raise ConfigurationError(
            f"language: found {language!r}, expected one of {', '.join(sorted(known))}, or None "
            "to let the model tell"
        )
    return code


def _to_heard(found: dict[str, Any], length_s: float) -> Heard:
    words = [
        Word(text=word["word"], start_s=max(float(word["start"]), 0), end_s=float(word["end"]))
        for word in found.get("words", [])
    ]
    span_s = float(found["start"]), float(found["end"])
    no_speech = float(found["no_speech_prob"])
    segment = make_segment(found["text"], span_s, words, no_speech, length_s)
    return Heard(segment, float(found["avg_logprob"]))
