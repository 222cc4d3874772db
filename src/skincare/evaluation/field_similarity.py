"""The similarity of two values of a field of a structured answer; pure functions.

Names are compared exactly after normalisation, sizes as quantities, texts by ANLS, lists of ingredients as sets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anls_star import anls_score

from skincare.product.normalisation import normalised
from skincare.product.sizes import parse_size

# Relative tolerance of equal sizes: packs of 100 ml print 3.4 fl oz.
SIZE_TOLERANCE: Final = 0.02

# Synonyms of ingredients on packs. Source of the right-hand side: the INCI names of the CosIng database.
_SYNONYMS: Final[dict[str, str]] = {
    "water": "aqua", "eau": "aqua", "aqua water": "aqua", "water aqua": "aqua", "aqua eau": "aqua",
    "aqua water eau": "aqua", "purified water": "aqua",
    "fragrance": "parfum", "perfume": "parfum", "parfum fragrance": "parfum", "fragrance parfum": "parfum",
    "glycerine": "glycerin", "glycerol": "glycerin", "vitamin e": "tocopherol", "vitamin c": "ascorbic acid",
    "vitamin b3": "niacinamide", "nicotinamide": "niacinamide", "provitamin b5": "panthenol",
    "shea butter": "butyrospermum parkii butter", "jojoba oil": "simmondsia chinensis seed oil",
    "sodium chloride": "maris sal", "sea salt": "maris sal", "dimethicon": "dimethicone",
    "alcohol": "alcohol denat", "denatured alcohol": "alcohol denat",
}  # fmt: skip


def similarity(name: str, truth: Any, predicted: Any) -> float:
    """Return the similarity of two values of a field, 0 to 1, by the field's comparison."""
    return _COMPARISONS[name](truth, predicted)


def document_similarity(truth: Mapping[str, Any], predicted: Mapping[str, Any]) -> float:
    """Return the ANLS* of whole answers: normalised texts, canonical sizes, sets of ingredients.

    Source: D. Peer et al., "ANLS* - A Universal Document Processing Metric for Generative Large Language Models", 2024.
    """
    one, other = ({name: _plain_value(name, value) for name, value in values.items()} for values in (truth, predicted))
    return _anls(one, other)


def _exact(truth: str, predicted: str) -> float:
    return float(normalised(truth) == normalised(predicted))


def _text(truth: str, predicted: str) -> float:
    return _anls(normalised(truth), normalised(predicted))


def _anls(truth: Any, predicted: Any) -> float:
    found: Any = anls_score(truth, predicted)
    return float(found)


def _size(truth: str, predicted: str) -> float:
    one, other = parse_size(truth), parse_size(predicted)
    if one is None or other is None:
        return _exact(truth, predicted)
    return float(one.equals(other, SIZE_TOLERANCE))


def _ingredients(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Return the F1 of two sets of ingredients."""
    one, other = ({_ingredient(text) for text in texts} for texts in (truth, predicted))
    return 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0


def _ingredient(text: str) -> str:
    plain = normalised(text)
    return _SYNONYMS.get(plain, plain)


def _plain_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "ingredients":
        return [_ingredient(one) for one in value]
    if name == "size":
        return str(parse_size(value) or normalised(value))
    return normalised(value)


_COMPARISONS: Final[dict[str, Callable[[Any, Any], float]]] = {
    **dict.fromkeys(("brand", "category", "country", "manufacturer", "origin", "forNightOrMorning"), _exact),
    **dict.fromkeys(("name", "details", "howToUse"), _text),
    "size": _size,
    "ingredients": _ingredients,
}
