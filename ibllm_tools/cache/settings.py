"""How what the visual cache retrieves is blended into an embedding."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ibllm_tools.errors import ConfigurationError

FORMS = ("code", "paper")


@dataclass(frozen=True)
class CacheSettings:
    """How retrieved image vectors are blended into an embedding.

    Attributes:
        k: Vectors retrieved.
        temperature: Factor t of the similarities before the softmax (form "code").
        weight: Share of the retrieved vector, 0 to 1.
        form: "code" is what the released program computes: the average by softmax(t · sim) is
            normalised, blended, and the result normalised. "paper" is Eq. 4: the sum weighted
            by the similarities themselves, blended, and not normalised.
        folder: Of another cache than the model's own, as `ibllm cache build` writes it.
    """

    k: int = 10
    temperature: float = 20.0
    weight: float = 0.5
    form: Literal["code", "paper"] = "code"
    folder: str | None = None

    def __post_init__(self) -> None:
        """Refuse settings without a meaning.

        Raises:
            ConfigurationError: A setting is out of range.
        """
        if self.k < 1:
            raise ConfigurationError(f"cache k: found {self.k}, expected at least 1")
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigurationError(f"cache weight: found {self.weight}, expected 0 to 1")
        if not self.temperature >= 0.0:
            raise ConfigurationError(
                f"cache temperature: found {self.temperature}, expected 0 or more"
            )
        if self.form not in FORMS:
            raise ConfigurationError(f"cache form: found {self.form!r}, expected one of {FORMS}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)
