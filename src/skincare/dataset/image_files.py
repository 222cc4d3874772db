"""Where the bytes of a dataset's images come from: files below a folder, or shards (skincare.dataset.shards)."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skincare.errors import StageError


class ImageFiles(Protocol):
    """Gives an image's bytes by its path in the dataset; may be asked from many threads."""

    def bytes_of(self, image: str) -> bytes:
        """Return the bytes; raises StageError where they cannot be had."""
        ...

    def sha256_of(self, image: str) -> str:
        """Return the hash of the bytes, if need be without having them; raises StageError as `bytes_of` does."""
        ...


@dataclass(frozen=True)
class FolderImages:
    """Images as files below a root."""

    root: Path

    def bytes_of(self, image: str) -> bytes:
        """Return the bytes of a file; raises StageError where it cannot be read."""
        try:
            return (self.root / image).read_bytes()
        except OSError as error:
            raise StageError(f"{image}: {error.strerror}\nRun `python src/build_dataset.py` again.") from error

    def sha256_of(self, image: str) -> str:
        """Return the hash of a file's bytes; raises StageError where it cannot be read."""
        return hashlib.sha256(self.bytes_of(image)).hexdigest()
