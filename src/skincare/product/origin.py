"""Country of origin and manufacturer as a text states them: text in, name out; empty where it states none.

>>> stated_origin("Fabriqué en France"), stated_origin("made with centella from Madagascar")
('France', '')
"""

import csv
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Final

# English names, and regular expressions of the spellings on packs, without accents.
_TABLE: Final = Path(__file__).with_name("countries.csv")
_MADE: Final = (
    r"(?:(?:hand)?made|produced|manufactured|crafted|bottled)\s*in|product\s+of|fabriqu[ee]+s?\s+en|produit\s+en|conditionne\s+en|"
    r"hergestellt\s+in|produziert\s+in|hecho\s+en|fabricado\s+(?:en|em|no)|elaborado\s+en|producto\s+de|feito\s+(?:em|no)|"
    r"prodotto\s+in|fatto\s+in|gemaakt\s+in|geproduceerd\s+in|wyprodukowano\s+w[eo]?|vyrobeno\s+v|tillverkad\s+i|"
    r"сделано\s+в|произведено\s+в|изготовлено\s+в|страна\s+(?:происхождения|изготовитель)\s*:?|country\s+of\s+origin\s*:?|origin\s*:|"
    r"xuat xu\s*:?|san xuat tai"
)
_SIGNS: Final = (
    ("日本製", "Japan"),
    ("韓国製", "South Korea"),
    ("中国制造", "China"),
    ("台灣製", "Taiwan"),
    ("한국산", "South Korea"),
)
_MAKER: Final = re.compile(
    r"(?:manufactured|manufacturer|produced|mfd\.?|mfg\.?)\s*(?:and\s+marketed\s+)?by\s*:?\s*|manufacturer\s*:\s*|"
    r"(?:hergestellt\s+von|hersteller|fabriqu[ée]\s+par|fabricant|fabricado\s+por|fabricante|prodotto\s+da|produttore|"
    r"wyprodukowano\s+przez|producent|производитель|изготовитель|制造商|製造販売元|製造元|제조업자|"
    r"제조원|ผลิตโดย|sản xuất bởi)\s*[:：]?\s*",
    re.IGNORECASE,
)
_MAKER_END: Final = re.compile(r"\n|[,;|•]|\.\s|\s(?:for|at|in|under|plot|address)\s", re.IGNORECASE)
_MAX_MAKER: Final = 60


def stated_origin(text: str) -> str:
    """Return the English name of the country after "made in" and the like; empty where there is none."""
    for sign, country in _SIGNS:
        if sign in text:
            return country
    countries, pattern = _countries()
    # Runs of blanks would take quadratic time.
    found = pattern.search(_plain(" ".join(text.split())))
    return countries[found.lastindex - 1] if found and found.lastindex else ""


def stated_manufacturer(text: str) -> str:
    """Return the company after "manufactured by" and the like, up to the end of its line; empty where there is none."""
    found = _MAKER.search(text)
    if not found:
        return ""
    name = _MAKER_END.split(text[found.end() : found.end() + _MAX_MAKER], maxsplit=1)[0].strip(" .:-*\"'»«“”")
    return name if sum(map(str.isalpha, name)) >= 3 else ""


@cache
def _countries() -> tuple[tuple[str, ...], re.Pattern[str]]:
    """Return the names and a pattern of "made in" with one group per country."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups = "|".join(f"({_plain(row['spellings']).replace('(', '(?:')})" for row in rows)
    pattern = rf"(?<![a-z])(?:{_MADE})\s*(?:the\s+|republic\s+of\s+|der\s+)?(?:{groups})(?![a-z])"
    return tuple(row["name"] for row in rows), re.compile(pattern, re.IGNORECASE)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(one for one in decomposed if not unicodedata.combining(one)).replace("đ", "d")
