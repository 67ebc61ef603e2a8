"""What a cleaning takes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ibllm_tools.data.cleaning.languages import LANGUAGES, Language
from ibllm_tools.errors import ConfigurationError


@dataclass(frozen=True)
class CleaningOptions:
    """What to take out. None, or an empty tuple, leaves a filter out.

    Attributes:
        languages: Languages that stay: "en", "zh", "other".
        min_words, max_words: Length of texts whose words are parted by spaces.
        min_characters, max_characters: Length of Chinese texts.
        duplicates: "rows": the same media with the same text; "media": the same media, whatever
            the text; "off". The first row stays ("media": the one whose text fits best).
        max_repeats: Rows go whose text stands beside more different media than this.
        min_similarity: Least cosine of media and text.
        keep_share: Share of the judged rows that similarity lets stay, best first.
        judged: Languages whose texts are compared with media. Chinese is left out by default:
            the text trunk of the released encoder learned English.
        near_duplicate: Least cosine of near-duplicates.
    """

    languages: tuple[Language, ...] = ()
    min_words: int | None = None
    max_words: int | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    duplicates: Literal["rows", "media", "off"] = "rows"
    max_repeats: int | None = None
    min_similarity: float | None = None
    keep_share: float | None = None
    judged: tuple[Language, ...] = ("en", "other")
    near_duplicate: float | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigurationError: A value is out of range, or two exclude each other.
        """
        if self.min_similarity is not None and self.keep_share is not None:
            raise ConfigurationError("found min_similarity and keep_share; give one of them")
        ranges = {
            "min_similarity": (self.min_similarity, -1.0, 1.0),
            "keep_share": (self.keep_share, 0.0, 1.0),
            "near_duplicate": (self.near_duplicate, 0.5, 1.0),
        }
        for name, (value, low, high) in ranges.items():
            if value is not None and not low <= value <= high:
                raise ConfigurationError(f"found {name} {value}, expected {low} to {high}")
        for name in ("languages", "judged"):
            for language in getattr(self, name):
                if language not in LANGUAGES:
                    expected = ", ".join(LANGUAGES)
                    raise ConfigurationError(f"found language {language!r}, expected {expected}")

    @property
    def needs_similarity(self) -> bool:
        """Whether texts have to be encoded."""
        judges = self.min_similarity is not None or self.keep_share is not None
        return judges or self.near_duplicate is not None or self.duplicates == "media"
