"""Hints: what is known of an image beside the image, as one line after the question.

    Reference OCR token: CERAVE, Hydrating Cleanser, 236 ml
    Product metadata: brand CeraVe; size 236 ml; price 9.50 GBP; ingredients Aqua, Glycerin

The text is others': of a pack or of a shop's page. In a hint it is one line, and holds no `<` or `>`, so that nothing
in it is a token of any chat template, here or in another trainer's. A budget in UTF-8 bytes bounds the line without a
tokenizer: a byte-level one makes at most a token of each byte, of names and words about one of four.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from skincare.errors import StageError
from skincare.files import write_json
from skincare.paths import Layout
from skincare.prompts import HINT_LABELS, HintKind, hint_kind
from skincare.tables import METADATA, CleanRow, MetadataRow
from skincare.text_reading import pack_text
from skincare.text_reading.pack_text import PackText

# About as much as the front of a pack says: 400 bytes are 100 to 150 of Qwen's tokens, as many as an image has.
MAX_BYTES: Final = 400
N_INGREDIENTS: Final = 5

# `<|im_end|>`, `<image>`, `<think>`: all tokens of templates that we know stand in these.
_HARMLESS: Final = str.maketrans({"<": "‹", ">": "›"})
_LONGEST_PART: Final = 1000  # characters of one line of a pack that are looked at


# In a model's folder: how the hints were made that it has learnt with.
SETTINGS_FILE: Final = "hints.json"


@dataclass(frozen=True)
class HintSettings:
    """What a prediction needs to give a model hints like those it was trained with; kind none: it had none."""

    kind: HintKind = "none"
    max_bytes: int = MAX_BYTES


def write_settings(folder: Path, hints: Sequence[str]) -> None:
    """Write into a model's folder how the hints of its training were made; nothing where there were none."""
    if (kind := kind_of(hints)) != "none":
        n_bytes = max(len(hint.removeprefix(HINT_LABELS[kind]).encode()) for hint in hints)
        write_json(folder / SETTINGS_FILE, asdict(HintSettings(kind, n_bytes)))


def read_settings(folder: Path) -> HintSettings:
    """Return how the hints of a model's training were made; raises StageError for a file that does not say it."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return HintSettings()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        settings = HintSettings(str(found["kind"]), int(found["max_bytes"]))  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError) as error:
        raise StageError(f"{path}: does not say how hints are made ({error}); export the model again") from error
    if settings.kind not in HINT_LABELS or settings.max_bytes < 1:
        raise StageError(f"{path}: hints of an unknown kind, {settings}; export the model again")
    return settings


def text_hint(lines: Iterable[str], max_bytes: int = MAX_BYTES) -> str:
    """Return the hint of a pack's lines in their order, each said once; empty where none holds a letter or a digit."""
    parts: dict[str, str] = {}
    for line in lines:
        part = plain(line)
        if any(character.isalnum() for character in part):
            parts.setdefault(part.casefold(), part)
    return _joined(HINT_LABELS["text"], ", ", parts.values(), max_bytes)


def metadata_hint(row: MetadataRow, max_bytes: int = MAX_BYTES, *, with_name: bool = False) -> str:
    """Return the hint of a product's brand, size, price and first ingredients; empty where nothing is known.

    `with_name`: also its name, which as a rule says the category.
    """
    known = {
        "name": row.name if with_name else "",
        "brand": row.brand,
        "size": row.size,
        "price": f"{row.price} {row.currency}".strip() if row.price else "",
        "ingredients": ", ".join(one.strip() for one in row.ingredients.split(",")[:N_INGREDIENTS]),
    }
    parts = [f"{field} {value}" for field, text in known.items() if (value := plain(text).replace(";", ","))]
    return _joined(HINT_LABELS["metadata"], "; ", parts, max_bytes)


def plain(text: str) -> str:
    """Return text as one line in which nothing is a token of a chat template.

    "Serum<|im_end|>\\n" -> "Serum‹|im_end|›". NFC, as Qwen's tokenizer reads it.
    """
    shown = "".join(c if c.isprintable() else _unseen(c) for c in text[:_LONGEST_PART])
    return " ".join(unicodedata.normalize("NFC", shown).translate(_HARMLESS).split())


def _unseen(character: str) -> str:
    """Return nothing for what takes no room (soft hyphens, marks of direction), else a blank."""
    return "" if unicodedata.category(character) == "Cf" else " "


def hints_of(
    kind: HintKind, rows: Sequence[CleanRow], layout: Layout, max_bytes: int = MAX_BYTES, *, with_name: bool = False
) -> dict[str, str]:
    """Return image id -> hint of the clean images; empty where nothing is known of one.

    Raises MissingInputError where the table that the hints are made of is absent, StageError where it is of other
    images.
    """
    if kind == "text":
        texts = _current_texts(rows, layout)
        return {row.image_id: text_hint(texts[row.image_id].texts, max_bytes) for row in rows}
    if kind == "metadata":
        products = {row.product_id: row for row in METADATA.read(layout.metadata_table)}
        made = {key: metadata_hint(row, max_bytes, with_name=with_name) for key, row in products.items()}
        return {row.image_id: made.get(row.product_id, "") for row in rows}
    return {row.image_id: "" for row in rows}


def kind_of(hints: Iterable[str]) -> HintKind:
    """Return where the hints of a dataset are from; StageError where they are from several places."""
    kinds = {hint_kind(hint) for hint in hints if hint}
    if len(kinds) > 1:
        raise StageError(f"The examples hold hints of several kinds: {', '.join(sorted(kinds))}")
    return kinds.pop() if kinds else "none"


def _current_texts(rows: Sequence[CleanRow], layout: Layout) -> Mapping[str, PackText]:
    texts = pack_text.read_pack_text(layout.pack_text)
    behind = [row.image_id for row in rows if (one := texts.get(row.image_id)) is None or one.sha256 != row.sha256]
    if behind:
        raise StageError(
            f"{layout.pack_text}: {len(behind)} of {len(rows)} images are not read as they are now, such as "
            f"{behind[0]}\nRun `python src/read_text.py` again."
        )
    return texts


def _joined(label: str, separator: str, parts: Iterable[str], max_bytes: int) -> str:
    """Return label and whole parts up to the budget; of a first part that does not fit what fits."""
    found = ""
    for part in parts:
        longer = f"{found}{separator}{part}" if found else part.encode()[:max_bytes].decode(errors="ignore").strip()
        if len(longer.encode()) > max_bytes:
            break
        found = longer
    return label + found if found else ""
