"""What every detector and recognizer does, whichever library it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image as PilImage

    from ibllm_tools.experts.results import Detections, Transcript


@runtime_checkable
class Detector(Protocol):
    """Finds objects in pictures. Safe to call from many threads."""

    def detect(
        self,
        image: PilImage.Image,
        labels: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Detections:
        """Find objects.

        Args:
            image: A picture of any mode, upright.
            labels: Nouns to look for. A detector of fixed classes finds all of its classes
                without; an open-vocabulary one needs them.
            threshold: Least score, 0 to 1; by default one that suits the model.

        Raises:
            MediaError: The picture is too large, or too narrow to look at.
            ConfigurationError: The labels are missing, too many, or not among the classes.
            CheckpointError: The model cannot be loaded.
        """
        ...

    def classes(self) -> tuple[str, ...] | None:
        """Return the classes that it knows, loading it if need be; None if any noun will do."""
        ...


@runtime_checkable
class Recognizer(Protocol):
    """Turns speech into text. Safe to call from many threads."""

    def transcribe(
        self, samples: NDArray[np.float32], rate_hz: int, language: str | None = None
    ) -> Transcript:
        """Write down what is said.

        Args:
            samples: (S,) mono float32 in [-1, 1].
            rate_hz: Samples per second.
            language: Code such as "en"; by default the model tells.

        Raises:
            MediaError: The sound is empty, too long, not mono, or holds NaN.
            ConfigurationError: The model does not know the language.
            CheckpointError: The model cannot be loaded.
        """
        ...
