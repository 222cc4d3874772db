"""Export the dataset for other trainers, and for streaming from object storage.

In: clean_dataset/{train,val,test}.json and their images, csv_data/images_id_full.csv for sources and licences.

Out: exports/<format>/, or the folder or URL of --to; with images.csv (source, licence and attribution of each image)
and dataset_card.md, which has the command that loads it.

Command: python src/export_dataset.py                                      WebDataset: tar files and index.json

- python src/export_dataset.py --format parquet --to s3://bucket/skincare  (pip install s3fs for s3://)
- python src/export_dataset.py --format trl             for TRL's SFTTrainer
- python src/export_dataset.py --format llamafactory    for LLaMA-Factory
- python src/export_dataset.py --format ms-swift        for ms-swift
- python src/export_dataset.py --format imagefolder     a folder per split and category

Time: as long as reading and writing the images takes.

Exports are complete and can be moved: they hold every image, under relative names. An image that is no upright RGB JPEG
is converted, so that every loader shows it as this pipeline does. The same dataset gives the same bytes. An
interrupted run resumes: existing shards are not written again.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tqdm import tqdm

from skincare import runlog, stage, worker_pool
from skincare.dataset import chat
from skincare.dataset.chat import Example
from skincare.dataset.dataset_card import dataset_card
from skincare.dataset.file_exports import FILE_FORMS, FileFormat
from skincare.dataset.image_files import FolderImages
from skincare.dataset.shard_formats import Format
from skincare.dataset.shards import INDEX, Shard, Storage, write_index, write_shards
from skincare.errors import StageError
from skincare.images import BrokenImageError, decode, encode_jpeg, is_plain_jpeg
from skincare.labels import Labels, labels_of
from skincare.paths import SPLITS, Layout
from skincare.prompts import labels_for
from skincare.runlog import Summary
from skincare.tables import IMAGES, ImageRow

logger = logging.getLogger(__name__)

_CARD: Final = "dataset_card.md"
_CREDITS: Final = "images.csv"
# Any of these files marks a folder as an earlier export; the last one, of version 1.
_MARKS: Final = (INDEX, _CARD, "dataset_info.json")
_IMAGE_FOLDERS: Final = ("images", *SPLITS)


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """Options of the stage."""

    format: Literal["webdataset", "parquet", "trl", "llamafactory", "ms-swift", "imagefolder"] = "webdataset"
    """Format of the export: shards of tar or Parquet files, or image files with the annotations of a trainer."""
    to: str = ""
    """Folder or URL to write to, instead of exports/<format>."""
    shard_mb: int = 64
    """Maximum size of the images in a shard, in MB."""


def run(config: Config, layout: Layout) -> Summary:
    """Write the card and the credits, then shards with their index or image files with their annotations."""
    if config.shard_mb < 1:
        raise StageError("--shard-mb must be at least 1")
    parts = {split: chat.read_dataset(layout, split) for split in SPLITS}
    target = chat.target_of_examples(one for part in parts.values() for one in part)
    labels = labels_for(target, labels_of(layout))
    credits = _credits(parts, layout)
    storage = Storage(config.to or str(layout.export(config.format)))
    _refuse_foreign(storage)
    runlog.remove_summary("export_dataset", layout)
    fingerprint = _fingerprint(parts)
    # Written first, so that an interrupted export is recognised as one.
    storage.write(_CARD, dataset_card(config.format, parts, credits, fingerprint, labels).encode())
    _write_credits(storage, credits)
    files = FolderImages(layout.root)
    n_shards = 0
    if config.format == "webdataset" or config.format == "parquet":
        shards = _write_shards(storage, config.format, parts, _exported(files), config.shard_mb * 1_000_000, labels)
        n_bytes, n_shards = sum(shard.n_bytes for shard in shards), len(shards)
        what = f"{n_shards} shards of {n_bytes / 1e6:.1f} MB"
    else:
        n_bytes = _write_files(storage, config.format, parts, files, labels)
        what = f"{n_bytes / 1e6:.1f} MB of image files"
    return Summary(
        headline=f"{sum(map(len, parts.values())):,} images as {config.format}, {what}, to {storage.url}",
        counts={split: len(part) for split, part in parts.items()},
        results={
            "format": config.format,
            "n_shards": n_shards,
            "n_bytes": n_bytes,
            "split_fingerprint": fingerprint,
        },
    )


def _exported(files: FolderImages) -> Callable[[str], bytes]:
    return lambda image: _exported_bytes(files.bytes_of(image), image)


def _write_shards(
    storage: Storage, kind: Format, parts: Mapping[str, Sequence[Example]], bytes_of: Callable[[str], bytes],
    max_bytes: int, labels: Labels,
) -> list[Shard]:  # fmt: skip
    has_hints = any(one.hint for part in parts.values() for one in part)
    shards: list[Shard] = []
    images: dict[str, list[list[str]]] = {}
    with tqdm(total=sum(map(len, parts.values())), desc="export_dataset", unit="image", disable=None) as bar:
        for split, part in parts.items():
            images[split] = []
            made = write_shards(storage, kind, split, part, bytes_of, max_bytes, has_hints=has_hints)
            for shard, entries in made:
                shards.append(shard)
                images[split] += entries
                bar.update(shard.n_images)
    write_index(storage, kind, shards, images, labels)
    return shards


def _write_files(
    storage: Storage, kind: FileFormat, parts: Mapping[str, Sequence[Example]], files: FolderImages, labels: Labels
) -> int:
    """Write every image, then the files that name them; return the bytes of all images."""
    form = FILE_FORMS[kind]
    examples = [(split, one) for split, part in parts.items() for one in part]
    contents = worker_pool.map_threads(_exported(files), (one.image for _, one in examples))
    written: set[str] = set()
    n_bytes = 0
    bar = tqdm(contents, total=len(examples), desc="export_dataset", unit="image", disable=None)
    for (split, one), content in zip(examples, bar, strict=True):
        name = form.image_path(split, one, labels)
        storage.write(name, content)
        written.add(name)
        n_bytes += len(content)
    storage.remove_images_but(written, _IMAGE_FOLDERS)
    for name, text in form.annotations(parts, labels).items():
        storage.write(name, text.encode())
    return n_bytes


def _refuse_foreign(storage: Storage) -> None:
    """Raise StageError for a folder that has files of these names but is no export, such as clean_dataset/."""
    names = (_CREDITS, *_IMAGE_FOLDERS, *(f"{split}.json" for split in SPLITS))
    in_the_way = [name for name in names if storage.exists(name)]
    if in_the_way and not any(storage.exists(name) for name in _MARKS):
        raise StageError(f"{storage.url} holds {', '.join(in_the_way)} and is no earlier export; name another --to")


def _credits(parts: Mapping[str, Sequence[Example]], layout: Layout) -> dict[str, ImageRow]:
    """Return by image id the source, licence and attribution of each image, as far as known."""
    exported = {one.image_id for part in parts.values() for one in part}
    rows = IMAGES.read(layout.images_table) if layout.images_table.is_file() else []
    return {row.image_id: row for row in rows if row.image_id in exported}


def _write_credits(storage: Storage, images: Mapping[str, ImageRow]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _CREDITS
        IMAGES.write(path, images.values())
        storage.write(path.name, path.read_bytes())


def _fingerprint(parts: Mapping[str, Sequence[Example]]) -> str:
    lines = sorted(f"{split}\t{one.image}\t{one.answer}" for split, part in parts.items() for one in part)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _exported_bytes(content: bytes, image: str) -> bytes:
    """Return a plain upright RGB JPEG of an image file; raises StageError for one that cannot be decoded.

    Loaders differ: most ignore the EXIF orientation and colour profiles, show transparent parts black, or rely on the
    file's suffix. An upright RGB JPEG without a colour profile keeps its bytes; any other image is encoded again.
    """
    try:
        return content if is_plain_jpeg(content) else encode_jpeg(decode(content))
    except BrokenImageError as error:
        raise StageError(f"{image}: {error}\nRun `python src/clean.py` again.") from error


def main() -> None:
    """Run the stage from the command line."""
    stage.main("export_dataset", Config, run)


if __name__ == "__main__":
    main()
