"""From uploaded files to media: what each is sensed as, how much it counts, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media, MediaPolicy, Modality

DEMO_MEDIA = Path(__file__).parent.parent / "demo_media"
MAX_FILES = 8
PICTURES: tuple[Modality, ...] = ("image", "depth", "thermal")
AUTO = "auto"


@dataclass(frozen=True)
class Attached:
    """One file that waits to be sent.

    Attributes:
        path: Where the upload lies.
        name: What the person calls it.
        modality: What its content is; None where it cannot be read.
        problem: Why it cannot be read, or "".
    """

    path: str
    name: str
    modality: Modality | None
    problem: str = ""

    @property
    def choices(self) -> tuple[Modality, ...]:
        """What else it could be sensed as; a picture may hold depth or heat."""
        return PICTURES if self.modality in PICTURES else ()


class Uploads:
    """The one folder whose files a browser may name."""

    def __init__(self, folder: Path, policy: MediaPolicy, also: Sequence[Path] = ()) -> None:
        """Take files of `folder`, and of the folders `also`, within the limits of `policy`."""
        self.folder = folder
        self.policy = policy
        self._roots = [root.resolve() for root in (folder, *also)]

    def inspect(self, path: str) -> Attached:
        """Say what a file is; a problem is told, not raised."""
        name = Path(path).name
        try:
            return Attached(path, name, self.read(path).modality)
        except MediaError as error:
            return Attached(path, name, None, str(error))

    def read(self, path: str, modality: Modality | None = None, weight: float = 1.0) -> Media:
        """Read a file as a content block.

        Raises:
            MediaError: It is not an upload, too large, or no medium.
        """
        real = Path(path).resolve()
        if not any(real.is_relative_to(root) for root in self._roots):
            raise MediaError(
                f"{Path(path).name}: found a file that was not uploaded here; expected an "
                "upload; attach the file again"
            )
        return Media.from_path(real, modality=modality, weight=weight, policy=self.policy)
