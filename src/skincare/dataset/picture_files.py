"""Where the bytes of a dataset's pictures come from: files below a folder, or shards (skincare.dataset.shards)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skincare.errors import StageError


class PictureFiles(Protocol):
    """Gives a picture's bytes by its path in the dataset; may be asked from many threads."""

    def bytes_of(self, picture: str) -> bytes:
        """Return the bytes; raises StageError where they cannot be had."""
        ...


@dataclass(frozen=True)
class FolderPictures:
    """Pictures as files below a root."""

    root: Path

    def bytes_of(self, picture: str) -> bytes:
        """Return the bytes of a file; raises StageError where it cannot be read."""
        try:
            return (self.root / picture).read_bytes()
        except OSError as error:
            raise StageError(f"{picture}: {error.strerror}\nRun `python src/build_dataset.py` again.") from error
