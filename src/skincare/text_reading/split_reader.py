"""A reader that has seen nothing of val and test: for what is measured on them, and for weights that are fitted there.

The reader that answers users learns from all names of the catalogue (see `skincare.text_reading.reader_store`), those
of the test products too; what it scores on their photos would say little.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from skincare.catalogue import Product, name_family
from skincare.dataset.chat import Example
from skincare.errors import StageError
from skincare.labels import Labels
from skincare.text_reading.pack_text import PackText
from skincare.text_reading.reader import Reader

Table = npt.NDArray[np.float64]


def fit_on_train(
    parts: Mapping[str, Sequence[Example]],
    products: Sequence[Product],
    texts: Mapping[str, PackText],
    labels: Labels,
) -> Reader:
    """Return a reader of the catalogue's names and the training packs' texts, none of a product of val or test.

    Sizes of a product are one: a name of a held-out product's family is left out too. With texts of fewer than two
    categories the phrase table reads alone.
    """
    held_out = {one.product_id for split, part in parts.items() if split != "train" for one in part}
    families = {name_family(one.name) for one in products if one.product_id in held_out}
    seen = [one for one in products if name_family(one.name) not in families]
    read = [(one, texts[one.image_id]) for one in parts["train"] if one.image_id in texts]
    learnt = [one.name for one in seen] + [" ".join(text.texts) for _, text in read if text.lines]
    truths = [one.category for one in seen] + [one.category for one, text in read if text.lines]
    return Reader.fit(labels, learnt, truths) if len(set(truths)) > 1 else Reader(labels)


def read_packs(
    reader: Reader, examples: Sequence[Example], texts: Mapping[str, PackText]
) -> tuple[Table, npt.NDArray[np.bool_]]:
    """Return (n, n_labels) log-probabilities and, for each example, whether its pack was read at all.

    Raises StageError where read_text.py has not seen an image.
    """
    absent = [one.image_id for one in examples if one.image_id not in texts]
    if absent:
        raise StageError(
            f"The packs of {len(absent)} images were never read, such as {absent[0]}\nRun `python src/read_text.py`."
        )
    packs = [texts[one.image_id] for one in examples]
    found = [reader.predict(pack.lines, pack.other_script) for pack in packs]
    table = np.array([one.log_probabilities for one in found])
    return table, np.array([is_read(one.status) for one in found])


def is_read(status: str) -> bool:
    """Tell whether a reader's status stands for text that speaks: also where it was not sure enough to answer."""
    return status in ("read", "abstained")
