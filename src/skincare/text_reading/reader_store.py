"""The fitted reader of a root folder, stored in `.cache/reader/` and refitted when its training texts change.

Training texts are the names of the catalogue and, after build_dataset.py and read_text.py, the texts of the training
images; val and test images are not used. Without training texts the reader is the phrase table alone.
"""

import hashlib
import json
import logging
from pathlib import Path

from skincare.catalogue import read_products
from skincare.dataset.chat import read_dataset
from skincare.errors import StageError
from skincare.labels import Labels, labels_of
from skincare.paths import Layout
from skincare.text_reading.pack_text import read_pack_text
from skincare.text_reading.reader import THRESHOLD, VERSION, Reader, read_settings

logger = logging.getLogger(__name__)


def stored_reader(layout: Layout, *, threshold: float | None = None) -> Reader:
    """Return the reader of a root folder; fits and stores it if there is none (takes a few seconds)."""
    labels = labels_of(layout)
    threshold = THRESHOLD if threshold is None else threshold
    sources = _sources(layout)
    if not sources:
        return Reader(labels, threshold=threshold)
    key = _key(sources, labels)
    stored = _stored(layout.reader_cache, key, labels)
    if stored is None:
        texts, truths = _texts(layout)
        if len(set(truths)) < 2:
            logger.warning(
                "The products of %s have fewer than two categories; the reader uses the phrase table alone", layout.root
            )
            return Reader(labels, threshold=threshold)
        logger.info("The reader learns from %d texts of %s", len(texts), ", ".join(path.name for path in sources))
        stored = Reader.fit(labels, texts, truths)
        stored.save(layout.reader_cache, key=key, n_texts=len(texts))
    return Reader(labels, stored.classifier, threshold)


def _stored(folder: Path, key: str, labels: Labels) -> Reader | None:
    """Return the stored reader if it was fitted on the same files; None if it is absent or damaged."""
    if read_settings(folder).get("key") != key:
        return None
    try:
        return Reader.load(folder, labels)
    except StageError as error:
        logger.warning("%s", error)
        return None


def read_catalogue_names(path: Path, labels: Labels) -> tuple[list[str], list[str]]:
    """Return the names and the categories of a catalogue's products."""
    products = read_products(path, labels).products
    return [one.name for one in products], [one.category for one in products]


def _sources(layout: Layout) -> list[Path]:
    """Return the existing files with training texts."""
    found = [layout.catalogue] if layout.catalogue.is_file() else []
    packs = [layout.dataset("train"), layout.pack_text]
    return found + (packs if all(path.is_file() for path in packs) else [])


def _texts(layout: Layout) -> tuple[list[str], list[str]]:
    sources = _sources(layout)
    labels = labels_of(layout)
    texts, truths = read_catalogue_names(layout.catalogue, labels) if layout.catalogue in sources else ([], [])
    if layout.pack_text in sources:
        read = read_pack_text(layout.pack_text)
        for example in read_dataset(layout, "train"):
            pack = read.get(example.image_id)
            if pack is not None and pack.lines:
                texts.append(" ".join(pack.texts))
                truths.append(example.category)
    return texts, truths


def _key(sources: list[Path], labels: Labels) -> str:
    """Return a digest of everything that a fitted reader depends on."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    return hashlib.sha256(json.dumps([VERSION, labels.digest, digests]).encode()).hexdigest()
