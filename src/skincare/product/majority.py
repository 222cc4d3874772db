"""The majority baseline of structured answers: each field's most frequent value among the training products."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from skincare.product.facts import ProductFacts
from skincare.product.schema import FIELDS, Product


def majority_product(train: Sequence[ProductFacts]) -> Product:
    """Return the most frequent known value of each field; None where no product has one, or where more are known to
    have none. Of equally frequent values the first in alphabetical order counts.
    """
    values: dict[str, Any] = {}
    for field in FIELDS:
        counts = Counter(value for one in train if (value := getattr(one.product, field)) is not None)
        n_absent = sum(field in one.absent for one in train)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        values[field] = ranked[0][0] if ranked and ranked[0][1] >= n_absent else None
    return Product.model_validate(values)
