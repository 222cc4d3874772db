"""The `labels.toml` of an exported model and its phrase table: `Labels` in, files for `skincare.labels_file` out."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from skincare.files import write_text
from skincare.labels import Labels

FILE: Final = "labels.toml"
PHRASE_TABLE: Final = "labels_phrases.csv"


def write_labels(folder: Path, labels: Labels) -> None:
    """Write labels.toml and its phrase table into a folder."""
    write_text(folder / FILE, "\n".join(_lines(labels)) + "\n")
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["label", "language", "strength", "phrases"])
    writer.writerows(labels.pack_phrases)
    write_text(folder / PHRASE_TABLE, rows.getvalue())


def _lines(labels: Labels) -> Iterator[str]:
    if labels.domain:
        yield f"domain = {_text(labels.domain)}"
    yield f"question = {_text(labels.question)}"
    yield f"instruction = {_text(labels.instruction)}"
    yield f"nameless = {_list(labels.nameless)}"
    yield f"phrase_table = {_text(PHRASE_TABLE)}"
    yield ""
    yield "[parents]"
    yield from (f"{_text(family)} = {_list(members)}" for family, members in labels.families)
    for name, n_unnamed in zip(labels.names, labels.n_unnamed, strict=True):
        yield ""
        yield "[[labels]]"
        yield f"name = {_text(name)}"
        if aliases := _aliases(labels, name):
            yield f"aliases = {aliases}"
        yield f"n_unnamed = {n_unnamed}"
        if name in labels.dominant:
            yield "is_dominant = true"


def _aliases(labels: Labels, name: str) -> str:
    """Return the aliases of a label as an inline table, by language."""
    by_language: dict[str, list[str]] = {}
    for phrase, label, language in labels.aliases:
        if label == name:
            by_language.setdefault(language, []).append(phrase)
    if not by_language:
        return ""
    return "{" + ", ".join(f"{_text(language)} = {_list(phrases)}" for language, phrases in by_language.items()) + "}"


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _text(value: str) -> str:
    """Return a TOML basic string; its escapes are those of JSON, and DEL must be escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
