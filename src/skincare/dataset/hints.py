"""Hints: information about a product in addition to its image, as one line after the question.

    Reference OCR token: CERAVE, Hydrating Cleanser, 236 ml
    Product metadata: brand CeraVe; size 236 ml; price 9.50 GBP; ingredients Aqua, Glycerin

The text comes from a pack or from a shop's page, so it is not trusted. In a hint it is one line without `<` and `>`, so
that nothing in it is a special token of a chat template, in this pipeline or in another trainer. A limit in UTF-8 bytes
needs no tokenizer: a byte-level tokenizer makes at most one token per byte, and about one per four bytes of words.
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

# About the text on the front of a pack: 400 bytes are 100 to 150 of Qwen's tokens, as many as those of an image.
MAX_BYTES: Final = 400
N_INGREDIENTS: Final = 5

# `<|im_end|>`, `<image>`, `<think>`: the special tokens of the known chat templates have these characters.
_WITHOUT_BRACKETS: Final = str.maketrans({"<": "‹", ">": "›"})
_LONGEST_PART: Final = 1000  # characters of one line of a pack that are used


# File in a model's folder: the settings of its training hints.
SETTINGS_FILE: Final = "hints.json"


@dataclass(frozen=True)
class HintSettings:
    """The settings of a model's training hints, which prediction uses too; kind none: trained without hints."""

    kind: HintKind = "none"
    max_bytes: int = MAX_BYTES


def write_settings(folder: Path, hints: Sequence[str]) -> None:
    """Write the settings of the training's hints into a model's folder; nothing for training without hints."""
    if (kind := kind_of(hints)) != "none":
        n_bytes = max(len(hint.removeprefix(HINT_LABELS[kind]).encode()) for hint in hints)
        write_json(folder / SETTINGS_FILE, asdict(HintSettings(kind, n_bytes)))


def read_settings(folder: Path) -> HintSettings:
    """Return the settings of the hints that a model was trained with; raises StageError for an invalid file."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return HintSettings()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        settings = HintSettings(str(found["kind"]), int(found["max_bytes"]))  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError) as error:
        raise StageError(f"{path}: not valid settings of hints ({error}); export the model again") from error
    if settings.kind not in HINT_LABELS or settings.max_bytes < 1:
        raise StageError(f"{path}: unknown settings of hints, {settings}; export the model again")
    return settings


def text_hint(lines: Iterable[str], max_bytes: int = MAX_BYTES) -> str:
    """Return the hint of a pack's lines in order, without repetitions; empty if no line has a letter or a digit."""
    parts: dict[str, str] = {}
    for line in lines:
        part = plain(line)
        if any(character.isalnum() for character in part):
            parts.setdefault(part.casefold(), part)
    return _joined(HINT_LABELS["text"], ", ", parts.values(), max_bytes)


def metadata_hint(row: MetadataRow, max_bytes: int = MAX_BYTES, *, with_name: bool = False) -> str:
    """Return the hint of a product's brand, size, price and first ingredients; empty if all are unknown.

    `with_name`: also its name, which usually contains the category.
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
    """Return text as one line without special tokens of a chat template.

    "Serum<|im_end|>\\n" -> "Serum‹|im_end|›". NFC, as Qwen's tokenizer reads it.
    """
    shown = "".join(c if c.isprintable() else _replacement(c) for c in text[:_LONGEST_PART])
    return " ".join(unicodedata.normalize("NFC", shown).translate(_WITHOUT_BRACKETS).split())


def _replacement(character: str) -> str:
    """Return nothing for a character without width (soft hyphens, direction marks), else a space."""
    return "" if unicodedata.category(character) == "Cf" else " "


def hints_of(
    kind: HintKind, rows: Sequence[CleanRow], layout: Layout, max_bytes: int = MAX_BYTES, *, with_name: bool = False
) -> dict[str, str]:
    """Return image id -> hint of the clean images; empty if all are unknown.

    Raises MissingInputError if the table of texts or metadata is missing, StageError if it is of other images.
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
    """Return the kind of a dataset's hints; StageError if there are several kinds."""
    kinds = {hint_kind(hint) for hint in hints if hint}
    if len(kinds) > 1:
        raise StageError(f"The examples have hints of several kinds: {', '.join(sorted(kinds))}")
    return kinds.pop() if kinds else "none"


def _current_texts(rows: Sequence[CleanRow], layout: Layout) -> Mapping[str, PackText]:
    texts = pack_text.read_pack_text(layout.pack_text)
    outdated = [row.image_id for row in rows if (one := texts.get(row.image_id)) is None or one.sha256 != row.sha256]
    if outdated:
        raise StageError(
            f"{layout.pack_text}: the text of {len(outdated)} of {len(rows)} images is missing or out of date, such as "
            f"{outdated[0]}\nRun `python src/read_text.py` again."
        )
    return texts


def _joined(label: str, separator: str, parts: Iterable[str], max_bytes: int) -> str:
    """Return the label and as many whole parts as fit into `max_bytes`; a first part that is too long is cut."""
    found = ""
    for part in parts:
        longer = f"{found}{separator}{part}" if found else part.encode()[:max_bytes].decode(errors="ignore").strip()
        if len(longer.encode()) > max_bytes:
            break
        found = longer
    return label + found if found else ""
