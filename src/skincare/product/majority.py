"""The majority baseline of structured answers: each field's most frequent value among the training products."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from skincare.product.schema import FIELDS, Product


def majority_product(products: Sequence[Product]) -> Product:
    """Return the most frequent known value of each field; None where no product has one. Of equally frequent
    values the first in alphabetical order counts.
    """
    values: dict[str, Any] = {}
    for field in FIELDS:
        counts = Counter(value for one in products if (value := getattr(one, field)) is not None)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        values[field] = ranked[0][0] if ranked else None
    return Product.model_validate(values)
