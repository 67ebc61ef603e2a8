"""What experts report: boxes in pixels, times in seconds, scores from 0 to 1."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel, ConfigDict, Field


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Detection(_Result):
    """One object that was found.

    Attributes:
        label: What it is.
        score: How sure the detector is, 0 to 1; scores of different models do not compare.
        box: (x0, y0, x1, y1) in pixels of the picture, from its upper left corner.
    """

    label: str
    score: float = Field(ge=0, le=1)
    box: tuple[float, float, float, float]


class Detections(_Result):
    """All objects found in one picture, the surest first.

    Attributes:
        detections: The objects; empty where nothing was found.
        width_px: Width of the picture.
        height_px: Height of the picture.
        model: The checkpoint that found them.
    """

    detections: list[Detection]
    width_px: int = Field(gt=0)
    height_px: int = Field(gt=0)
    model: str

    def counts(self) -> dict[str, int]:
        """Return how many objects of each label there are, the most frequent first."""
        return dict(Counter(found.label for found in self.detections).most_common())


class Word(_Result):
    """One spoken word.

    Attributes:
        text: The word with its punctuation, without spaces around it.
        start_s: When it begins.
        end_s: When it ends.
    """

    text: str
    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)


class Segment(_Result):
    """A stretch of speech, about a sentence.

    Attributes:
        text: What is said.
        start_s: When it begins.
        end_s: When it ends.
        words: The words with their times; empty where the model gives no times of words.
        no_speech: How likely the model holds it that nobody speaks here, 0 to 1.
    """

    text: str
    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    words: list[Word] = Field(default_factory=list)
    no_speech: float = Field(ge=0, le=1)


class Transcript(_Result):
    """What is said in a sound.

    Attributes:
        text: All that is said; empty where nobody speaks.
        language: Code of the language, such as "en"; None where nobody speaks or it is not known.
        segments: The stretches of speech in order of time.
        is_speech: False for silence, noise and music.
        model: The checkpoint that listened.
    """

    text: str
    language: str | None
    segments: list[Segment]
    is_speech: bool
    model: str
