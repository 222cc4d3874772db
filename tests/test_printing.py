from collections import Counter

import numpy as np
import pytest

from skincare.labels import skincare_labels
from skincare.sample import drawing, printing
from skincare.sample.printing import lines_of_name, printed_lines
from skincare.sample.products import sample_products
from skincare.text_reading.reader import Reader

CATEGORIES = skincare_labels().names

NOUNS = {category: (f"{category} one", f"{category} two") for category in CATEGORIES}


def kind_of(category, lines):
    if len(lines) == 1:
        return "brand_only"
    if len(lines) == 3:
        return "other_category"
    return "english" if lines[1] in NOUNS[category] else "foreign"


def test_packs_print_their_type_in_the_stated_shares():
    kinds = Counter(kind_of("Mask", printed_lines("Oru", "Mask", NOUNS, str(i))) for i in range(2000))
    for kind, share in printing._SHARES.items():
        assert kinds[kind] / 2000 == pytest.approx(share, abs=0.035)


def test_usage_line_names_another_category():
    hints = [lines for i in range(300) if len(lines := printed_lines("Oru", "Mask", NOUNS, str(i))) == 3]
    assert hints
    for _, noun, hint in hints:
        assert noun in NOUNS["Mask"]
        assert any(other.lower() in hint for key, others in NOUNS.items() if key != "Mask" for other in others)


def test_the_same_seed_prints_the_same():
    assert [printed_lines("Oru", "Peel", NOUNS, "7") for _ in range(2)] == [
        printed_lines("Oru", "Peel", NOUNS, "7")
    ] * 2


def test_two_sizes_of_one_product_print_the_same():
    by_packaging: dict = {}
    for product in sample_products(seed=0):
        by_packaging.setdefault((product.packaging, product.category, product.brand), set()).add(product.printed)
    assert all(len(printed) == 1 for printed in by_packaging.values())


def test_a_catalogues_name_is_printed_in_a_few_lines():
    assert lines_of_name("Halden Calming Rose Day Cream 50ml") == ("Halden", "Calming Rose", "Day Cream", "50ml")
    assert len(lines_of_name("a " * 60)) == printing.MAX_LINES


@pytest.mark.parametrize("label", drawing.LABELS)
def test_print_stays_on_the_pack_and_shows(label):
    packaging = drawing.Packaging("dropper", "white", "black", label, "drop")
    plain = np.asarray(drawing.draw(packaging, drawing.View(), 480, "a", "b").image).astype(int)
    printed = np.asarray(drawing.draw(packaging, drawing.View(), 480, "Extraordinarily", "Long Lines Of Text").image)
    changed = np.abs(plain - printed).max(axis=2) > 0
    mask = np.asarray(drawing.draw(packaging, drawing.View(), 480).mask) > 0
    assert changed.sum() > 50
    assert not changed[~mask].any()


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_reader_knows_the_foreign_words(category):
    reader = Reader(
        skincare_labels(),
    )
    for word in printing._FOREIGN[category]:
        assert reader.predict([word]).label == category
