"""Structured answers of drawn packs, of very different lengths."""

import dataclasses

from skincare.dataset import chat
from skincare.labels import skincare_labels
from skincare.product.schema import Product
from skincare.prompts import labels_for
from tests.dataset_helpers import write_dataset_files

LABELS = labels_for("product", skincare_labels())

PRODUCTS = (
    Product(category="Peel"),
    Product(brand="L’Oréal", category="Bath Salts", size="2 x 50 ml", name="Сиворотка"),
    Product(category="Eye Care", ingredients=("Aqua", "Glycerin", "Parfum"), forNightOrMorning="night"),
    Product(brand="Noor", category="Moisturiser", details='A "rich" cream.', howToUse="Apply twice a day."),
)
ANSWERS = [one.to_json() for one in PRODUCTS]


def write_structured_dataset(layout, sizes, fields=("brand", "size")):
    """Write dataset files with answers that have a category and, in turn, more fields."""
    parts = write_dataset_files(layout, sizes)
    for split, part in parts.items():
        parts[split] = [_structured(one, i, fields) for i, one in enumerate(part)]
        chat.write_dataset(layout, split, parts[split])
    return parts


def _structured(one, number, fields):
    values = {"brand": "Noor", "size": f"{30 + number} ml"}
    known = {name: values[name] for name in fields[: number % (len(fields) + 1)]}
    answer = Product(category=one.category, **known).to_json()
    return dataclasses.replace(one, question=LABELS.question, product=answer)
