"""Speech to text by transformers' Whisper.

```
sound ── windows of 30 s ── silent? ── skip
                              └─ encoder ── one step: language, p(no speech)
                                   └─ words, times ── their mean log probability ── hearing
```
The encoder runs once per window. Decoding is greedy, so that the same sound gives the same text.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.experts.checkpoints import (
    find_source,
    load_whole,
    loading,
    module_bytes,
    stored_bytes,
)
from ibllm_tools.experts.hearing import Heard, Limits, is_silent, make_segment, to_transcript
from ibllm_tools.experts.inputs import RATE_HZ, check_sound, to_model_rate
from ibllm_tools.experts.registry import REGISTRY, ExpertKey, Loaded, Registry
from ibllm_tools.experts.words import to_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ibllm_tools.experts.results import Transcript

MIN_STEP_S = 1.0  # a window moves on by at least this much
TIME_STEP_S = 0.02  # between two time tokens
MIN_WINDOW_S = 0.1  # a shorter rest holds no word


class TransformersRecognizer:
    """A Whisper model in transformers' format; its weights load at the first sound.

    Args:
        checkpoint: A folder or a hub id.
        device: As in torch; by default an accelerator where there is one.
        dtype: By default bfloat16 on an accelerator, else as stored.
        registry: Where the loaded model is kept.

    Raises:
        CheckpointError: The checkpoint is a path where nothing is.
        ConfigurationError: There is no such device or dtype.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str | None = None,
        dtype: str | None = None,
        registry: Registry = REGISTRY,
    ) -> None:
        from ibllm_tools.engine import Placement

        self.checkpoint = checkpoint
        self._source = find_source(checkpoint)
        self._place = Placement.choose(device, dtype)
        self._registry = registry
        self.key = ExpertKey(self._source, str(self._place.device), str(self._place.dtype))

    def transcribe(
        self, samples: NDArray[np.float32], rate_hz: int, language: str | None = None
    ) -> Transcript:
        """Write down what is said; see `protocols.Recognizer`."""
        sound = to_model_rate(check_sound(samples, rate_hz), rate_hz)
        if is_silent(sound):
            return to_transcript([], sound, None, self.checkpoint)
        with self._use() as whisper:
            heard, language = whisper.listen(sound, whisper.check_language(language))
            limits = whisper.limits
        return to_transcript(heard, sound, language, self.checkpoint, limits)

    def _use(self) -> AbstractContextManager[_Whisper]:
        return self._registry.use(self.key, self._load, stored_bytes(self._source))

    def _load(self) -> Loaded:
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        dtype = self._place.dtype or torch.float32
        with loading(self.checkpoint, "a Whisper model of transformers"):
            # The attention must be one that gives its numbers: times of words come from them.
            model = load_whole(
                WhisperForConditionalGeneration,
                self._source,
                dtype=dtype,
                attn_implementation="eager",
            )
            processor = WhisperProcessor.from_pretrained(self._source)
            limits = Limits(**getattr(model.config, "speech_limits", {}))
        _check_kind(model, self.checkpoint)
        logging.getLogger("transformers.generation.utils").addFilter(_is_for_us)
        model = model.to(self._place.device).eval()
        return Loaded(_Whisper(model, processor, limits), module_bytes(model))


def _is_for_us(record: logging.LogRecord) -> bool:
    """Drop a hint on how transformers' own Whisper calls its own `generate`."""
    return "Passing `generation_config` together with" not in record.getMessage()


def _check_kind(model: Any, checkpoint: str) -> None:
    if model.config.model_type != "whisper":
        raise CheckpointError(
            f"{checkpoint} is a {model.config.model_type} model; expected Whisper, such as "
            "openai/whisper-base"
        )


@dataclass(frozen=True)
class _Window:
    """One encoded window: what the decoder listens to, and what it says first."""

    start_s: float
    length_s: float
    features: Any
    encoded: Any
    no_speech: float
    language: str | None


class _Whisper:
    """A loaded model: not safe for two threads at once, the registry sees to that."""

    def __init__(self, model: Any, processor: Any, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.extract = processor.feature_extractor
        self.tokenizer = processor.tokenizer
        self.settings = model.generation_config
        by_token = getattr(self.settings, "lang_to_id", None) or {}
        self.language_ids = {name.strip("<|>"): int(i) for name, i in by_token.items()}
        self.has_times = getattr(self.settings, "no_timestamps_token_id", None) is not None
        self.has_word_times = bool(getattr(self.settings, "alignment_heads", None))

    def check_language(self, language: str | None) -> str | None:
        """Return the code of a language that the model knows.

        Raises:
            ConfigurationError: It knows no such language.
        """
        if language is None:
            return None
        known = self.language_ids or {"en": 0}
        code = language.strip().lower()
        if code not in known:
            raise ConfigurationError(
                f"language: found {language!r}, expected one of {', '.join(sorted(known))}, or "
                "None to let the model tell"
            )
        return code

    def listen(
        self, sound: NDArray[np.float32], language: str | None
    ) -> tuple[list[Heard], str | None]:
        """Go over (S,) at 16 kHz window by window; returns segments and the language."""
        import torch

        window_s = float(self.extract.chunk_length)
        length_s = sound.size / RATE_HZ
        heard: list[Heard] = []
        start_s = 0.0
        while length_s - start_s >= MIN_WINDOW_S or start_s == 0:
            part = sound[int(start_s * RATE_HZ) : int((start_s + window_s) * RATE_HZ)]
            if is_silent(part):
                start_s += window_s
                continue
            with torch.inference_mode():
                window = self._encode(part, start_s, language)
                found, step_s = self._decode(window, length_s)
            if language is None and found:
                language = window.language
            heard += found
            start_s += step_s if start_s + window_s < length_s else window_s
        return heard, language or (None if self.language_ids else "en")

    def _encode(self, part: NDArray[np.float32], start_s: float, language: str | None) -> _Window:
        features = self.extract(
            part, sampling_rate=RATE_HZ, return_tensors="pt", return_attention_mask=True
        )
        features = features.to(self.model.device)
        mels = features["input_features"].to(self.model.dtype)
        encoded = self.model.get_encoder()(mels)
        first = self._first_step(encoded)  # (V,) probabilities
        if language is None and self.language_ids:
            language = max(
                self.language_ids, key=lambda code: float(first[self.language_ids[code]])
            )
        no_speech = self._no_speech(first)
        return _Window(start_s, part.size / RATE_HZ, features, encoded, no_speech, language)

    def _first_step(self, encoded: Any) -> Tensor:
        """What follows the start token: a language, or "no speech"."""
        import torch

        start = torch.tensor([[self.settings.decoder_start_token_id]], device=self.model.device)
        logits = self.model(encoder_outputs=encoded, decoder_input_ids=start).logits
        probabilities: Tensor = logits[0, -1].float().softmax(-1)
        return probabilities

    def _no_speech(self, first: Tensor) -> float:
        """The probability of the no-speech token, which stands before <|notimestamps|>."""
        vocabulary = self.tokenizer.get_vocab()
        names = ("<|nospeech|>", "<|nocaptions|>")
        ids = [vocabulary[name] for name in names if name in vocabulary]
        return float(first[ids[0]]) if ids else 0.0

    def _decode(self, window: _Window, length_s: float) -> tuple[list[Heard], float]:
        """The segments of a window, and how far the next window is from it in seconds."""
        options: dict[str, Any] = {"return_timestamps": self.has_times}
        if self.language_ids:
            options |= {"language": window.language, "task": "transcribe"}
        if self.has_word_times and self.has_times:
            options["return_token_timestamps"] = True
        answer = self.model.generate(
            input_features=window.features["input_features"].to(self.model.dtype),
            attention_mask=window.features["attention_mask"],
            encoder_outputs=window.encoded,
            return_segments=True,
            force_unique_generate_call=True,
            condition_on_prev_tokens=False,
            do_sample=False,
            num_beams=1,
            **options,
        )
        found = [(segment, segment["tokens"].tolist()) for segment in answer["segments"][0]]
        segments = [one for one in found if self._text_positions(one[1])]
        heard = [self._to_heard(segment, window, length_s) for segment, _ in segments]
        window_s = float(self.extract.chunk_length)
        if heard and self._is_cut(segments[-1][1]):
            return heard, max(heard[-1].segment.end_s - window.start_s, MIN_STEP_S)
        if not heard and found and self.has_times:
            # A time alone, late in the window: there the first words begin, cut by its end.
            begins_s = self._begins(found[-1][1])
            return heard, begins_s if begins_s > window_s / 2 else window_s
        return heard, window_s

    def _begins(self, tokens: list[int]) -> float:
        """The last time among tokens, in seconds; 0 if there is none."""
        zero = int(self.settings.no_timestamps_token_id) + 1
        return max((TIME_STEP_S * (token - zero) for token in tokens if token >= zero), default=0.0)

    def _is_cut(self, tokens: list[int]) -> bool:
        """Tell whether another segment begins that does not end within the window.

        Two times in a row at the end say so; the next window then begins with that segment.
        """
        said = tokens[:-1] if tokens[-1] == self.settings.eos_token_id else tokens
        times = self.settings.no_timestamps_token_id if self.has_times else len(self.tokenizer)
        return len(said) > 1 and min(said[-2:]) > times

    def _text_positions(self, tokens: list[int]) -> list[int]:
        """Where tokens are text, neither times nor other special ones."""
        end = self.settings.eos_token_id
        first_special = min(end) if isinstance(end, list) else int(end)
        return [i for i, token in enumerate(tokens) if token < first_special]

    def _to_heard(self, found: dict[str, Any], window: _Window, length_s: float) -> Heard:
        tokens = found["tokens"].tolist()
        places = self._text_positions(tokens)
        text_ids = [tokens[i] for i in places]
        start_s, end_s = self._span(found, tokens, window)
        words = []
        if "token_timestamps" in found:
            times = (found["token_timestamps"].float() + window.start_s).tolist()
            # A token's time is when it ends; it begins where the one before it ends.
            ends = [times[i] for i in places]
            begin = times[places[0] - 1] if places[0] else start_s
            words = to_words(text_ids, ends, begin, self._spell, window.language)
        segment = make_segment(
            self._spell(text_ids), (start_s, end_s), words, window.no_speech, length_s
        )
        return Heard(segment, self._mean_logprob(window, text_ids))

    def _span(
        self, found: dict[str, Any], tokens: list[int], window: _Window
    ) -> tuple[float, float]:
        """When a segment begins and ends: by its own time tokens, where it has them."""
        start_s, end_s = float(found["start"]), float(found["end"])
        if self.has_times:
            zero = int(self.settings.no_timestamps_token_id) + 1  # the token <|0.00|>
            times = [TIME_STEP_S * (token - zero) for token in tokens if token >= zero]
            if tokens[0] >= zero:
                start_s = times[0]
            # Segments that follow each other end in a pair of times; the first one is theirs.
            later = times[1:] if tokens[0] >= zero else times
            end_s = later[0] if later else end_s
        end_s = min(end_s, window.length_s)
        return window.start_s + start_s, window.start_s + max(start_s, end_s)

    def _spell(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _mean_logprob(self, window: _Window, text_ids: list[int]) -> float:
        """How likely the model finds its own words, read again in one step."""
        import torch

        prompt = [self.settings.decoder_start_token_id]
        if self.language_ids and window.language is not None:
            prompt.append(self.language_ids[window.language])
            prompt.append(self.settings.task_to_id["transcribe"])
        if self.has_times:
            prompt.append(self.settings.no_timestamps_token_id)
        n_read = self.model.config.max_target_positions
        ids = torch.tensor([[*prompt, *text_ids][:n_read]], device=self.model.device)
        logits = self.model(encoder_outputs=window.encoded, decoder_input_ids=ids).logits
        logprobs = logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        chosen = logprobs.gather(1, ids[0, len(prompt) :, None])
        return float(chosen.mean())
