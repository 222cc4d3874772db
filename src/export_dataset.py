"""Export the dataset for other trainers and for streaming from object storage.

In: clean_dataset/{train,val,test}.json and their images, csv_data/images_id_full.csv for sources and licences.
Out: exports/<format>/, or the folder or URL given by --to: shards with index.json, or files for LLaMA-Factory;
images.csv (whence each image is, its licence, whom to name) and dataset_card.md.
Command: python src/export_dataset.py                                       (WebDataset: tar files)
         python src/export_dataset.py --format parquet --to s3://bucket/skincare   (pip install s3fs for s3://)
         python src/export_dataset.py --format llamafactory
Time: as long as reading the images and writing them takes.

The same dataset gives the same bytes. A run that was stopped goes on: shards that are there are not written again.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tqdm import tqdm

from skincare import runlog, stage
from skincare.dataset import chat
from skincare.dataset.chat import Example
from skincare.dataset.dataset_card import dataset_card
from skincare.dataset.image_files import FolderImages
from skincare.dataset.shard_formats import Format
from skincare.dataset.shards import INDEX, Shard, Storage, write_index, write_shards
from skincare.errors import StageError
from skincare.labels import labels_of
from skincare.paths import SPLITS, Layout
from skincare.runlog import Summary
from skincare.tables import IMAGES, ImageRow

logger = logging.getLogger(__name__)

_DATASET_INFO: Final = "dataset_info.json"
_CREDITS: Final = "images.csv"


@dataclass(frozen=True, kw_only=True)
class Config(stage.StageConfig):
    """What the stage can be told."""

    format: Literal["webdataset", "parquet", "llamafactory"] = "webdataset"
    """Form of the export: shards of tar or Parquet files, or JSON as LLaMA-Factory reads it."""
    to: str = ""
    """Folder or URL to write to, instead of exports/<format>."""
    shard_mb: int = 64
    """Most megabytes of images in a shard."""


def run(config: Config, layout: Layout) -> Summary:
    """Write shards or JSON, then the index and the card."""
    if config.shard_mb < 1:
        raise StageError("--shard-mb must be at least 1")
    parts = {split: chat.read_dataset(layout, split) for split in SPLITS}
    images = _credits(parts, layout)
    storage = Storage(config.to or str(layout.export(config.format)))
    _refuse_foreign(storage)
    runlog.take_back_summary("export_dataset", layout)
    shards = _write_llamafactory(storage, parts, layout) if config.format == "llamafactory" else _write_shards(
        storage, config.format, parts, layout, config.shard_mb * 1_000_000
    )  # fmt: skip
    fingerprint = _fingerprint(parts)
    _write_credits(storage, images)
    storage.write(
        "dataset_card.md", dataset_card(config.format, parts, images, fingerprint, labels_of(layout)).encode()
    )
    n_bytes = sum(shard.n_bytes for shard in shards)
    return Summary(
        headline=f"{sum(map(len, parts.values())):,} images as {config.format}, {len(shards)} shards of "
        f"{n_bytes / 1e6:.1f} MB, to {storage.url}",
        counts={split: len(part) for split, part in parts.items()},
        results={
            "format": config.format,
            "n_shards": len(shards),
            "n_bytes": n_bytes,
            "split_fingerprint": fingerprint,
        },
    )


def _write_shards(
    storage: Storage, kind: Format, parts: Mapping[str, Sequence[Example]], layout: Layout, max_bytes: int
) -> list[Shard]:
    files = FolderImages(layout.root)
    has_hints = any(one.hint for part in parts.values() for one in part)
    shards: list[Shard] = []
    images: dict[str, list[list[str]]] = {}
    with tqdm(total=sum(map(len, parts.values())), desc="export_dataset", unit="image", disable=None) as bar:
        for split, part in parts.items():
            images[split] = []
            made = write_shards(storage, kind, split, part, files.bytes_of, max_bytes, has_hints=has_hints)
            for shard, entries in made:
                shards.append(shard)
                images[split] += entries
                bar.update(shard.n_images)
    write_index(storage, kind, shards, images, labels_of(layout))
    return shards


def _write_llamafactory(storage: Storage, parts: Mapping[str, Sequence[Example]], layout: Layout) -> list[Shard]:
    """Write one file a split and their description; images stay where they are, named by their whole path."""
    described = {f"skincare_{split}": {"file_name": f"{split}.json", **chat.LLAMAFACTORY_COLUMNS} for split in parts}
    # First, so that an export that was cut off is known as one.
    storage.write(_DATASET_INFO, (json.dumps(described, indent=2) + "\n").encode())
    for split, part in parts.items():
        elements = [chat.to_llamafactory(one, str(layout.root / one.image)) for one in part]
        storage.write(f"{split}.json", (json.dumps(elements, indent=1, ensure_ascii=False) + "\n").encode())
    return []


def _refuse_foreign(storage: Storage) -> None:
    """Raise StageError for a folder that holds files called as ours, but no export: clean_dataset/, say."""
    marks = (INDEX, _DATASET_INFO, "dataset_card.md")
    in_the_way = [name for name in (_CREDITS, *(f"{split}.json" for split in SPLITS)) if storage.size(name) is not None]
    if in_the_way and all(storage.size(name) is None for name in marks):
        raise StageError(f"{storage.url} holds {', '.join(in_the_way)} and is no earlier export; name another --to")


def _credits(parts: Mapping[str, Sequence[Example]], layout: Layout) -> dict[str, ImageRow]:
    """Return by image id where each image is from, its licence and whom to name, as far as known."""
    exported = {one.image_id for part in parts.values() for one in part}
    rows = IMAGES.read(layout.images_table) if layout.images_table.is_file() else []
    return {row.image_id: row for row in rows if row.image_id in exported}


def _write_credits(storage: Storage, images: Mapping[str, ImageRow]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _CREDITS
        IMAGES.write(path, images.values())
        storage.write(path.name, path.read_bytes())


def _fingerprint(parts: Mapping[str, Sequence[Example]]) -> str:
    lines = sorted(f"{split}\t{one.image}\t{one.category}" for split, part in parts.items() for one in part)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main() -> None:
    """Run the stage from the command line."""
    stage.main("export_dataset", Config, run)


if __name__ == "__main__":
    main()
