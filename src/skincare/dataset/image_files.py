"""Readers of a dataset's image files: from a folder here, from shards in `skincare.dataset.shards`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skincare.errors import StageError


class ImageFiles(Protocol):
    """Reads an image's bytes by its path in the dataset; safe to use from many threads."""

    def bytes_of(self, image: str) -> bytes:
        """Return the bytes; raises StageError where they cannot be read."""
        ...

    def sha256_of(self, image: str) -> str:
        """Return the SHA-256 of the bytes, without reading them where it is known; raises StageError."""
        ...


@dataclass(frozen=True)
class FolderImages:
    """Image files below a root folder."""

    root: Path

    def bytes_of(self, image: str) -> bytes:
        """Return the bytes of a file; raises StageError where it cannot be read."""
        try:
            return (self.root / image).read_bytes()
        except OSError as error:
            raise StageError(f"{image}: {error.strerror}\nRun `python src/build_dataset.py` again.") from error

    def sha256_of(self, image: str) -> str:
        """Return the SHA-256 of a file's bytes; raises StageError where it cannot be read."""
        return hashlib.sha256(self.bytes_of(image)).hexdigest()
