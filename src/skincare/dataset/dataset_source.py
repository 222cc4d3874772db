"""Opens a dataset: the files of the layout, or shards in a folder or in object storage."""

from skincare.dataset.chat import Example, read_dataset
from skincare.dataset.image_files import FolderImages, ImageFiles
from skincare.dataset.shards import ShardedDataset
from skincare.labels import labels_of
from skincare.paths import SPLITS, Layout


def read_parts(dataset: str, layout: Layout) -> dict[str, list[Example]]:
    """Return the examples by split; an empty `dataset` is that of the layout, else the URL of shards."""
    if dataset:
        return ShardedDataset(dataset, layout.image_cache, labels_of(layout)).parts
    return {split: read_dataset(layout, split) for split in SPLITS}


def image_files(dataset: str, layout: Layout) -> ImageFiles:
    """Return the reader of the examples' image files."""
    return ShardedDataset(dataset, layout.image_cache, labels_of(layout)) if dataset else FolderImages(layout.root)
