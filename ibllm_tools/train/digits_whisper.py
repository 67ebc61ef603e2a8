"""A Whisper for digits: its sizes, its own small tokenizer, and what it should write.

```
<|startoftranscript|> <|0.20|> seven four two<|2.10|> <|endoftext|>     words, begin, end
<|startoftranscript|> <|0.20|> seven<|0.80|><|4.70|> <|endoftext|>      a word is cut by the end
<|startoftranscript|> <|nospeech|>                                      nobody speaks
```
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ibllm_tools.train.digits_sounds import DIGITS, Spoken

WINDOW_S = 5
STEPS_PER_S = 50  # steps of the encoder, and time tokens
N_STEPS = STEPS_PER_S * WINDOW_S
ALIGNMENT_HEADS = ((1, 0), (1, 1))  # (layer, head) of the decoder that learn where words are
MAX_TOKENS = 32
REACHES = (3, 8, 12)  # steps, by layer of the encoder
FIRST_WAVE, NEAR_GAIN = 3, 1.8
NEAR_S = 0.2  # how far around a time token's place its heads may look

START, END, NO_SPEECH, NO_TIMES = (
    "<|startoftranscript|>",
    "<|endoftext|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
UNUSED = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>")


@dataclass(frozen=True)
class WhisperSizes:
    """Sizes of the model."""

    d_model: int = 96
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 2
    dropout: float = 0.05


def build_tokenizer() -> Any:
    """Make a byte-level tokenizer in which each digit word is one token."""
    from transformers import WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges: dict[tuple[str, str], None] = {}
    for word in DIGITS:
        piece = "Ġ"
        for letter in word:
            merges[piece, letter] = None
            piece += letter
    pieces = dict.fromkeys([*letters, *("".join(merge) for merge in merges)])
    vocab = {piece: i for i, piece in enumerate(pieces)}
    vocab[END] = len(vocab)
    tokenizer = WhisperTokenizer(vocab=vocab, merges=list(merges))
    # Whisper's rules: text < end < ... < no speech, no times, times.
    special = [START, *UNUSED, NO_SPEECH, NO_TIMES]
    special += [f"<|{i / STEPS_PER_S:.2f}|>" for i in range(N_STEPS + 1)]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def build_model(tokenizer: Any, sizes: WhisperSizes) -> Any:
    """Make a Whisper of 5 s windows with new weights."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    ids = tokenizer.convert_tokens_to_ids
    end = ids(END)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=sizes.d_model,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=4 * sizes.d_model,
        decoder_ffn_dim=4 * sizes.d_model,
        max_source_positions=N_STEPS,
        max_target_positions=MAX_TOKENS,
        dropout=sizes.dropout,
        decoder_start_token_id=ids(START),
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        attn_implementation="eager",  # its numbers are learned
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = _settings(tokenizer, config)
    encoder = model.get_encoder()
    for conv in (encoder.conv1, encoder.conv2):
        # Whisper's own small start drowns the sound in the embedding of its position.
        torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    for layer, reach in zip(encoder.layers, REACHES, strict=False):
        _look_near(layer.self_attn, reach)
    return model


@torch.no_grad()
def _look_near(attention: Any, reach: int) -> None:
    """Let each head begin with steps a little before or after its own, as a convolution does.

    Whisper adds sines and cosines of the position; turned by an angle, they meet those of a
    position nearby. Training is free to leave this again.
    """
    d_model, n_heads = attention.embed_dim, attention.num_heads
    n_waves = d_model // n_heads // 2
    half = d_model // 2
    chosen = torch.arange(FIRST_WAVE, FIRST_WAVE + n_waves)
    hz = torch.exp(-math.log(10_000) / (half - 1) * chosen)  # radians a step, as Whisper has them
    offsets = torch.linspace(-reach, reach, n_heads)
    for head, offset in enumerate(offsets):
        sine, cosine = torch.sin(hz * offset), torch.cos(hz * offset)
        rows = head * 2 * n_waves + torch.arange(n_waves)
        query, key = attention.q_proj.weight, attention.k_proj.weight
        query[rows, chosen] += NEAR_GAIN * cosine
        query[rows, half + chosen] += NEAR_GAIN * sine
        query[rows + n_waves, half + chosen] += NEAR_GAIN * cosine
        query[rows + n_waves, chosen] -= NEAR_GAIN * sine
        key[rows, chosen] += NEAR_GAIN
        key[rows + n_waves, half + chosen] += NEAR_GAIN


def _settings(tokenizer: Any, config: Any) -> Any:
    from transformers import GenerationConfig

    ids = tokenizer.convert_tokens_to_ids
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        no_timestamps_token_id=ids(NO_TIMES),
        prev_sot_token_id=ids("<|startofprev|>"),
        is_multilingual=False,
        alignment_heads=[list(head) for head in ALIGNMENT_HEADS],
        max_initial_timestamp_index=N_STEPS,
        max_length=MAX_TOKENS,
        return_timestamps=False,
        suppress_tokens=[ids(START), *(ids(name) for name in UNUSED), ids(NO_SPEECH)],
        begin_suppress_tokens=None,
    )


@dataclass(frozen=True)
class Target:
    """What the decoder reads and should say next at each of L places.

    Attributes:
        inputs: (L,) token ids.
        labels: (L,) token ids.
        spans: (L,) the encoder steps [first, last) that the alignment heads should look at; None
            leaves them free.
    """

    inputs: list[int]
    labels: list[int]
    spans: list[tuple[int, int] | None]


class Targets:
    """Writes targets in the tokens of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        ids = tokenizer.convert_tokens_to_ids
        self.start, self.end, self.no_speech, self.no_times = (
            int(ids(name)) for name in (START, END, NO_SPEECH, NO_TIMES)
        )
        self.zero = self.no_times + 1  # the token <|0.00|>
        self.words = [int(ids(f"Ġ{word}")) for word in DIGITS]

    def nothing(self, rng: random.Random, with_times: bool) -> Target:
        """Nobody speaks: what stands instead of a language says so, and no word follows."""
        second = self.zero + rng.randrange(N_STEPS) if with_times else self.no_times
        return Target([self.start, second], [self.no_speech, self.end], [None, None])

    def words_of(self, spoken: Sequence[Spoken], cut_s: float | None, with_times: bool) -> Target:
        """Words of a window, and where one begins that the window's end cuts, if one does."""
        labels, spans = [], []
        end_s = 0.0
        for word in spoken:
            labels.append(self.words[word.digit])
            spans.append(_steps(word.start_s, word.end_s))
            end_s = word.end_s
        first_s = spoken[0].start_s if spoken else cut_s or 0.0
        opening = self._time(first_s)
        if with_times and spoken:
            labels.append(self._time(end_s))
            spans.append(_steps(end_s - 0.02, end_s + NEAR_S))
        if with_times and spoken and cut_s is not None:
            labels.append(self._time(cut_s))
            spans.append(_steps(cut_s, WINDOW_S))
        second = opening if with_times else self.no_times
        around = _steps(first_s - NEAR_S / 2, first_s + NEAR_S / 2)
        after = _steps(end_s, end_s + NEAR_S) if spoken and not with_times else None
        return Target(
            [self.start, second, *labels],
            [opening, *labels, self.end],
            [around, *spans, after],
        )

    def _time(self, time_s: float) -> int:
        return self.zero + min(max(round(time_s * STEPS_PER_S), 0), N_STEPS)


def _steps(start_s: float, end_s: float) -> tuple[int, int]:
    first = min(max(int(start_s * STEPS_PER_S), 0), N_STEPS - 1)
    return first, min(max(round(end_s * STEPS_PER_S), first + 1), N_STEPS)
