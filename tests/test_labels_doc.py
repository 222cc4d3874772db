"""docs/labels.md says of the real catalogue what the real catalogue holds."""

import re
from collections import Counter

import pytest

from skincare.catalogue import read_products
from skincare.labels import skincare_labels
from skincare.paths import REPOSITORY
from skincare.text_reading.phrases import fold

# What each line counts: names that match, and names that must not.
COUNTED = {
    "eye cream, serum, gel": (
        r"\beyes?\b.*(cream|creme|serum|gel|balm|concentrate|treatment|roll)",
        "^$",
    ),
    "eye make-up remover": (r"eye.*makeup (remover|solvent)", "^$"),
    "make-up remover without eye": (r"makeup remov", "eye"),
    "eye mask": (r"eye.*mask", "^$"),
    "shower oil": (r"shower oil", "bath"),
    "bath and shower oil": (r"bath +and +shower oil", "^$"),
    "bath and shower gel": (r"(bath +and +shower|shower +and +bath) gel", "^$"),
    "face and body cleanser": (r"(face and body|all-over).*cleans", "^$"),
    "hand wash": (r"hand ?wash|hand +and +body wash|body and hand wash", "^$"),
    "wash, of no part of the body": (r"\bwash\b", "face|body|hand|facial|shower"),
    "cleansing bar": (r"cleansing bar", "^$"),
    "soap": (r"\bsoap\b", "^$"),
    "micellar water": (r"micellar", "^$"),
    "cleansing wipes, cloths": (r"wipes|cloths", "^$"),
    "cleansing balm": (r"cleansing balm|cleanse and smooth face balm", "^$"),
    "cleansing oil": (r"cleansing (face )?oil|oil cleanser", "^$"),
    "exfoliating cleanser": (r"exfoliat.*cleans|cleans.*exfoliat|scrub cleanser", "^$"),
    "exfoliating mask, scrub and mask": (r"(exfoliat|scrub).*mask|mask.*(scrub|exfoliat)", "^$"),
    "peeling mask, peel-off mask": (r"peel.*mask|mask.*peel", "^$"),
    "peel pads": (r"peel.*pad", "^$"),
    "rose water": (r"rose ?water", "^$"),
    "floral, flower, grape, rose water": (r"rose ?water|floral water|flower water|grape water", "^$"),
    "mist toner, toner mist": (r"mist toner|toner mist", "^$"),
    "toning, treatment, clarifying, soothing lotion": (
        r"(treatment|toning|clarifying|tonifying|soothing|refining) lotion",
        "^$",
    ),
    "spray": (r"\bspray\b", "^$"),
    "bath soak (liquid)": (r"bath soak", "^$"),
    "bubble bath, foaming bath, bath milk": (r"bubble bath|foaming bath|bath milk|cream bath|bathing oil", "^$"),
    "bath bomb, bath fizzer": (r"bath (bomb|fizz)", "^$"),
    "lip balm, lip treatment": (r"\blip\b.*(balm|treatment)", "^$"),
    "lip scrub": (r"lip scrub", "^$"),
    "hand mask, foot mask": (r"(hand|foot) mask", "^$"),
    "hand balm": (r"hand balm", "^$"),
    "ointment": (r"ointment", "^$"),
    "oil serum": (r"oil serum", "^$"),
    "booster": (r"booster", "^$"),
    "essence": (r"\bessence\b", "^$"),
}
TABLE = re.compile(r"^\| (?P<what>[^|]+) \| (?P<counts>[A-Z][^|]* \d[^|]*) \| [^|]+ \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def products(real_data):
    return [
        (fold(one.name), one.category)
        for one in read_products(real_data / "skincare_products_clean.csv", skincare_labels()).products
    ]


def test_the_counts_are_those_of_the_catalogue(products):
    text = (REPOSITORY / "docs" / "labels.md").read_text(encoding="utf-8")
    stated = {found["what"]: found["counts"] for found in TABLE.finditer(text)}
    assert stated.keys() >= COUNTED.keys()
    for what, (pattern, excluded) in COUNTED.items():
        counts = Counter(
            category for name, category in products if re.search(pattern, name) and not re.search(excluded, name)
        )
        assert Counter(dict(_counts(stated[what]))) == counts, what


def _counts(text):
    return [(part.rpartition(" ")[0], int(part.rpartition(" ")[2])) for part in text.split(", ")]
