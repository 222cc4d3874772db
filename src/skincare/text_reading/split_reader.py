"""A reader fitted without val and test products, for evaluation and for weights that are fitted on val.

The reader of predict.py is fitted on all names of the catalogue (see `skincare.text_reading.reader_store`), including
those of test products, so its accuracy on their photos would be biased.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from skincare.catalogue import Product
from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.labels import Labels
from skincare.product.sizes import name_family
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader

FloatArray = npt.NDArray[np.float64]


def without_held_out(parts: Mapping[str, Sequence[Example]], products: Sequence[Product]) -> list[Product]:
    """Return the products without those of val and test and without their other sizes."""
    held_out = {one.product_id for split, part in parts.items() if split != "train" for one in part}
    families = {name_family(one.name) for one in products if one.product_id in held_out}
    return [one for one in products if name_family(one.name) not in families]


def fit_on_train(
    parts: Mapping[str, Sequence[Example]],
    products: Sequence[Product],
    texts: Mapping[str, PackText],
    labels: Labels,
) -> Reader:
    """Return a reader fitted on catalogue names and training texts without any product of val or test.

    Names that differ from a held-out product only in size are excluded, too. With texts of fewer than two categories
    the reader is the phrase table alone.
    """
    seen = without_held_out(parts, products)
    read = [(one, texts[one.image_id]) for one in parts["train"] if one.image_id in texts]
    learnt = [one.name for one in seen] + [" ".join(text.texts) for _, text in read if text.lines]
    truths = [one.category for one in seen] + [one.category for one, text in read if text.lines]
    return Reader.fit(labels, learnt, truths) if len(set(truths)) > 1 else Reader(labels)


def read_packs(
    reader: Reader, examples: Sequence[Example], texts: Mapping[str, PackText]
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return (n, n_labels) log-probabilities and (n,) whether the pack of each example has text.

    Raises StageError if pack_text.jsonl lacks an image.
    """
    check_read(examples, texts)
    packs = [texts[one.image_id] for one in examples]
    found = [reader.predict(pack.lines, pack.other_script) for pack in packs]
    table = np.array([one.log_probabilities for one in found])
    return table, np.array([is_read(one.status) for one in found])


def check_read(examples: Sequence[Example], texts: Mapping[str, PackText]) -> None:
    """Raise StageError if the text of an example's pack was not read."""
    absent = [one.image_id for one in examples if one.image_id not in texts]
    if absent:
        raise StageError(
            f"The packs of {len(absent)} images were never read, such as {absent[0]}\nRun `python src/read_text.py`."
        )


def is_read(status: str) -> bool:
    """Return whether a reader's status means that the pack has text, whether or not the reader abstained."""
    return status in ("read", "abstained")
