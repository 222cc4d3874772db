"""Brands of a catalogue's products, by the beginnings of names that repeat: names in, brands out; pure functions.

A shop's product names begin with the brand, and a brand has several products. Nothing but the names is known, so the
rule is about how they branch: "Elemis" continues in many ways, "Molton" only as "Molton Brown". A name whose beginning
no other product shares has no brand here; nothing is guessed.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from skincare.product.sizes import parse_size

_WELL_KNOWN: Final = Path(__file__).with_name("known_brands.txt")
MAX_WORDS: Final = 4
MAX_NAME_WORDS: Final = 30
MIN_PRODUCTS: Final = 2
# A beginning is only the first part of the brand when this share of its products continues with one and the same
# word. The more words there are already, the likelier that word is a line's name, and the more products are needed.
_FORCED_SHARE: Final = 0.9
_MIN_FORCED: Final = {1: 2, 2: 8, 3: 20}
# Words that never end a brand: "The" Ordinary, "Dr." Hauschka, Pestle "&" Mortar, Sol "de" Janeiro.
_OPENING_WORDS: Final = frozenset(["the", "dr", "mr", "mrs", "st", "la", "le", "les", "el", "by"])
_JOINING_WORDS: Final = frozenset(["de", "du", "and", "of", "en", "au", "in"])
_TRADE_MARKS: Final = re.compile("[®™©]")


def brands_of(names: Iterable[str], category_words: Iterable[str] = ()) -> dict[str, str]:
    """Return name -> brand for the names whose brand their shared beginnings show.

    names: of distinct products. category_words: lower-case words that say what a product is; no brand holds one, so
    that "Bath Oil" of two nameless products is none.
    """
    words_of = {name: _words(name) for name in names}
    products: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, words in words_of.items():
        for n in range(1, MAX_WORDS + 2):
            products[_key(words[:n])].add(name)
    stop = frozenset(word.casefold() for word in category_words)
    spelled: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    keys = {}
    for name, words in words_of.items():
        if key := _brand_key(words, products, stop):
            keys[name] = key
            spelled[key][" ".join(words[: len(key)])] += 1
    # The usual spelling; of equally usual ones the alphabetically first, whatever the order of the names.
    usual = {key: min(counts, key=lambda one: (-counts[one], one)) for key, counts in spelled.items()}
    return {name: usual[key] for name, key in keys.items()}


def common_words(brands: Mapping[str, str], n_brands: int = 3) -> frozenset[str]:
    """Return the words, as compared, that the names of at least `n_brands` brands hold behind the brand.

    brands: name -> brand, as `brands_of` returns them. Such words ("cream", "night", "rose") are no brand themselves.
    """
    brands_with: dict[str, set[str]] = defaultdict(set)
    for name, brand in brands.items():
        for word in _words(name, MAX_NAME_WORDS)[len(brand.split()) :]:
            brands_with[_plain(word)].add(brand)
    return frozenset(word for word, found in brands_with.items() if len(found) >= n_brands)


@cache
def well_known_brands() -> tuple[str, ...]:
    """Return brands of skincare in their usual spelling: `known_brands.txt`, one per line, written by hand."""
    return tuple(_WELL_KNOWN.read_text(encoding="utf-8").split("\n"))[:-1]


def well_known_brand_of(name: str, common: Collection[str] = ()) -> str:
    """Return the longest well-known brand that a product's name begins with; empty if there is none.

    common: words, as compared, that are no brand by themselves (`common_words`): "Fresh Orange Shower Gel".
    """
    words = _words(name)
    for n in range(len(words), 0, -1):
        key = _key(words[:n])
        if key in _by_key() and not (len(key) == 1 and key[0] in common):
            return _by_key()[key]
    return ""


def begins_with(brand: str, shorter: str) -> bool:
    """Return whether a brand is a shorter one with more words: "Lumene Nordic" and "Lumene"."""
    one, other = _key(brand.split()), _key(shorter.split())
    return 0 < len(other) < len(one) and one[: len(other)] == other


@cache
def _by_key() -> dict[tuple[str, ...], str]:
    return {_key(brand.split()): brand for brand in well_known_brands()}


def _brand_key(
    words: list[str], products: Mapping[tuple[str, ...], set[str]], stop: frozenset[str]
) -> tuple[str, ...] | None:
    """Return the words of a name that are its brand, as they are compared."""
    best: tuple[str, ...] | None = None
    n_closed, n_before = 0, 0
    for n, word in enumerate(words[:MAX_WORDS], start=1):
        key = _key(words[:n])
        if len(key) < n or len(products[key]) < MIN_PRODUCTS or not _is_brand_word(word, stop):
            break
        if n_closed and not _is_forced(n_closed, n_before, len(products[key])):
            break
        if _plain(word) in _OPENING_WORDS:
            if n_closed:
                break
        elif _plain(word) not in _JOINING_WORDS:
            n_closed += 1
            best, n_before = key, len(products[key])
    return best


def _is_forced(n_closed: int, n_before: int, n_products: int) -> bool:
    """Tell whether the next word belongs to a brand of `n_closed` words and `n_before` products so far."""
    return n_before >= _MIN_FORCED.get(n_closed, n_before + 1) and n_products >= _FORCED_SHARE * n_before


def _is_brand_word(word: str, stop: frozenset[str]) -> bool:
    """Tell whether a word can be part of a brand: neither a size nor a word for what the product is."""
    return word.casefold() not in stop and not parse_size(word) and word[:1] not in "-(–|"


def _words(name: str, n: int = MAX_WORDS + 2) -> list[str]:
    return _TRADE_MARKS.sub("", unicodedata.normalize("NFC", name)).split()[:n]


def _key(words: Iterable[str]) -> tuple[str, ...]:
    """Return words as they are compared: without case, accents and punctuation ("DR. JART+" as "Dr Jart")."""
    return tuple(key for word in words if (key := _plain(word)))


def _plain(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    kept = "".join(c for c in decomposed if c.isalnum())
    return kept or ("and" if word == "&" else word)
