"""A dataset as shards: a few large files and an index, in a folder or any fsspec storage (s3://, gs://, ...).

    index.json                         the images of each shard, with hashes; written last, when all shards are there
    train-00000-3f9a62c0d1b7.tar       the name has the hash of the content, so an existing shard is not written again

Reading trusts the index alone: shards and images must match its hashes, and nothing in a shard determines where
anything is written. A shard is fetched once, when its first image is read; its images are then cached on disk under
their hashes.
"""

import hashlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fsspec

from skincare import image_names
from skincare.dataset import chat
from skincare.dataset.chat import Example
from skincare.dataset.shard_formats import FORMATS, Format, unpack
from skincare.errors import MissingInputError, StageError
from skincare.files import write_bytes
from skincare.labels import Labels
from skincare.paths import SPLITS
from skincare.prompts import labels_for

INDEX: Final = "index.json"
_REMEDY: Final = "Make it with `python src/export_dataset.py`."
_NAME: Final = re.compile(r"(train|val|test)-[0-9]{5}-[0-9a-f]{12}\.(tar|parquet)")
# Path, category, shard and hash; in an index of version 2 followed by the hint, where there is one; in one of version 3
# by the hint, which may be empty, and the structured answer.
_N_PLAIN: Final = 4
_STRUCTURED: Final = 3  # version of an index with structured answers
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """The file of a shard."""

    name: str
    sha256: str
    n_bytes: int
    n_images: int


class Storage:
    """A folder by its path or URL; raises StageError where it cannot be reached, read or written."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StageError(f"{url}: {error}") from error
        self._folder = path.rstrip("/")

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raises FileNotFoundError where it is absent."""
        try:
            content: bytes = self._files.cat_file(f"{self._folder}/{name}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StageError(f"{self.url}/{name}: {error}") from error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically, where the storage supports it."""
        self._files.makedirs(f"{self._folder}/{name}".rpartition("/")[0], exist_ok=True)
        with self._files.transaction, self._files.open(f"{self._folder}/{name}", "wb") as file:
            file.write(content)

    def size(self, name: str) -> int | None:
        """Return a file's size; None where it is absent."""
        path = f"{self._folder}/{name}"
        return int(self._files.size(path)) if self._files.exists(path) else None

    def exists(self, name: str) -> bool:
        """Return whether there is a file or a folder of this name."""
        return bool(self._files.exists(f"{self._folder}/{name}"))

    def remove_images_but(self, kept: set[str], folders: Iterable[str]) -> None:
        """Remove the images of earlier exports below these folders; files with other kinds of names stay."""
        for folder in folders:
            for path in self._files.find(f"{self._folder}/{folder}") if self.exists(folder) else []:
                name = str(path)[len(self._folder) + 1 :]
                if name not in kept and image_names.is_file_name(name.rpartition("/")[2]):
                    self._files.rm_file(path)

    def remove_shards_but(self, kept: set[str]) -> None:
        """Remove the shards of earlier exports; files with other kinds of names stay."""
        for path in self._files.ls(self._folder, detail=False):
            name = str(path).rpartition("/")[2]
            if _NAME.fullmatch(name) and name not in kept:
                self._files.rm_file(path)


def write_shards(
    storage: Storage, kind: Format, split: str, examples: Sequence[Example], bytes_of: Callable[[str], bytes],
    max_bytes: int, *, has_hints: bool = False,
) -> Iterator[tuple[Shard, list[list[str]]]]:  # fmt: skip
    """Write a split in its order; yield each shard with its entries of the index. Existing shards are kept."""
    for number, packed in enumerate(_filled(examples, bytes_of, max_bytes)):
        content = FORMATS[kind].pack(packed, has_hints)
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"{split}-{number:05}-{sha256[:12]}.{FORMATS[kind].ending}"
        if storage.size(name) != len(content):
            storage.write(name, content)
        entries = [_entry(one, name, hashlib.sha256(image).hexdigest()) for one, image in packed]
        yield Shard(name, sha256, len(content), len(packed)), entries


def write_index(
    storage: Storage, kind: Format, shards: Sequence[Shard], images: dict[str, list[list[str]]], labels: Labels
) -> None:
    """Write the index, which makes an export valid, and remove older shards."""
    listed = [vars(shard) for shard in shards]
    index = {
        "version": _version(images),
        "format": kind,
        "question": labels_for("product" if _version(images) == _STRUCTURED else "category", labels).question,
        "shards": listed,
        "images": images,
    }
    storage.write(INDEX, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    storage.remove_shards_but({shard.name for shard in shards})


class ShardedDataset:
    """An export, opened by its index: examples by split, and an `ImageFiles` of their images.

    Raises MissingInputError without an index, StageError for an invalid index or shard.
    """

    def __init__(self, url: str, cache: Path, labels: Labels) -> None:
        self._storage = Storage(url)
        self._cache = cache
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        try:
            index = json.loads(self._storage.read(INDEX))
        except FileNotFoundError as error:
            raise MissingInputError("index of shards", f"{url}/{INDEX}", _REMEDY) from error
        except ValueError as error:
            raise StageError(f"{url}/{INDEX}: not valid JSON ({error})\n{_REMEDY}") from error
        try:
            self._read_index(index, labels)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StageError(f"{url}/{INDEX}: {error}\n{_REMEDY}") from error

    def _read_index(self, index: Any, labels: Labels) -> None:
        self._format: Format = index["format"]
        if self._format not in FORMATS or index["version"] != _version(index["images"]):
            raise ValueError(f"unknown format: {str(self._format)[:50]!r}")
        labels = labels_for("product" if index["version"] == _STRUCTURED else "category", labels)
        if index["question"] != labels.question:
            raise ValueError(f"its question is not that of {labels.source}")
        self._shards = {one["name"]: Shard(**one) for one in index["shards"]}
        if invalid := [name for name in self._shards if not _NAME.fullmatch(name)]:
            raise ValueError(f"not the name of a shard: {invalid[0][:100]!r}")
        self.parts: dict[str, list[Example]] = {}
        self._places: dict[str, tuple[str, str]] = {}
        for split in SPLITS:
            entries = index["images"][split]
            self.parts[split] = [
                chat.example(image, category, labels, *rest) for image, category, _, _, *rest in entries
            ]
            for image, _, shard, sha256, *_ in entries:
                if shard not in self._shards or not _SHA256.fullmatch(sha256):
                    raise ValueError(f"{image}: in no shard, or without a hash")
                self._places[image] = (shard, sha256)

    def bytes_of(self, image: str) -> bytes:
        """Return an image's bytes, from the cache or after fetching its shard."""
        if image not in self._places:
            raise StageError(f"{image} is not in {self._storage.url}")
        shard, sha256 = self._places[image]
        if (content := self._cached(sha256)) is not None:
            return content
        with self._locks[shard]:
            # Another thread may have fetched it meanwhile.
            if self._cached(sha256) is None:
                self._fetch(self._shards[shard])
        if (content := self._cached(sha256)) is None:
            raise StageError(f"{self._storage.url}/{shard}: {image} is missing, or its hash is not that of the index")
        return content

    def sha256_of(self, image: str) -> str:
        """Return the SHA-256 of an image's bytes according to the index; nothing is fetched."""
        if image not in self._places:
            raise StageError(f"{image} is not in {self._storage.url}")
        return self._places[image][1]

    def _cached(self, sha256: str) -> bytes | None:
        try:
            content = (self._cache / sha256[:2] / sha256).read_bytes()
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == sha256 else None

    def _fetch(self, shard: Shard) -> None:
        """Put a shard's images into the cache; raises StageError where its size or hash is not that of the index."""
        where = f"{self._storage.url}/{shard.name}"
        try:
            content = self._storage.read(shard.name)
        except FileNotFoundError as error:
            raise MissingInputError("shard", where, _REMEDY) from error
        if len(content) != shard.n_bytes:
            raise StageError(f"{where}: {len(content)} bytes instead of {shard.n_bytes}: cut off, or another file")
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise StageError(f"{where}: its content is not what was written (wrong SHA-256)")
        try:
            images = unpack(self._format, content)
        except ValueError as error:
            raise StageError(f"{where}: {error}") from error
        for image in images.values():
            sha256 = hashlib.sha256(image).hexdigest()
            write_bytes(self._cache / sha256[:2] / sha256, image)


def _version(images: dict[str, list[list[str]]]) -> int:
    """Return 1 for plain entries, 2 where one has a hint, 3 where one has a structured answer."""
    longest = max((len(entry) for part in images.values() for entry in part), default=_N_PLAIN)
    return min(_STRUCTURED, 1 + max(0, longest - _N_PLAIN))


def _entry(one: Example, shard: str, sha256: str) -> list[str]:
    if one.product:
        return [one.image, one.category, shard, sha256, one.hint, one.product]
    return [one.image, one.category, shard, sha256, *([one.hint] if one.hint else [])]


def _filled(
    examples: Sequence[Example], bytes_of: Callable[[str], bytes], max_bytes: int
) -> Iterator[list[tuple[Example, bytes]]]:
    """Yield the examples of one shard after the other: up to `max_bytes` of images, at least one image."""
    packed: list[tuple[Example, bytes]] = []
    n_bytes = 0
    for one in examples:
        content = bytes_of(one.image)
        if packed and n_bytes + len(content) > max_bytes:
            yield packed
            packed, n_bytes = [], 0
        packed.append((one, content))
        n_bytes += len(content)
    if packed:
        yield packed
