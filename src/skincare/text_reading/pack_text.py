"""pack_text.jsonl: the OCR result of each image, one JSON object per line, sorted by image id.

    {"image_id": "12_1", "file": "clean_dataset/images/a_12_1.jpg", "sha256": "9f...", "engine": "rapidocr 3.10.0 ...",
     "status": "read", "reason": "", "other_script": "",
     "lines": [{"text": "Clay Mask", "confidence": 0.98, "box": [[0.3, 0.4], [0.6, 0.4], [0.6, 0.45], [0.3, 0.45]],
                "height": 0.05}]}

Boxes are relative to the width and height of the upright image, so they apply at any size. Lines are in reading order:
rows from top to bottom, within a row from left to right (see `skincare.text_reading.reading_order`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from skincare.errors import MissingInputError, StageError
from skincare.files import replacing
from skincare.tables import natural_key

REMEDY: Final = "Make it with `python src/read_text.py`."

PackTextStatus = Literal["read", "no_text", "unreadable", "failed"]
"""`unreadable`: the file cannot be decoded; `failed`: the OCR engine crashed, timed out or raised an error."""

Point = tuple[float, float]
Box = tuple[Point, Point, Point, Point]


@dataclass(frozen=True)
class TextLine:
    """One line of text. `box`: corners relative to width and height, clockwise from the top left of the text."""

    text: str
    confidence: float
    box: Box
    # Height of the letters relative to the image's height, for any orientation of the text.
    height: float


@dataclass(frozen=True)
class PackText:
    """OCR result of one image; `lines` in reading order, empty unless `status` is `read`."""

    image_id: str
    file: str
    sha256: str
    # Name, versions and settings of the engine; part of the cache key.
    engine: str
    status: PackTextStatus
    reason: str = ""
    lines: tuple[TextLine, ...] = ()
    # A script that the image probably contains and the engine cannot read, such as `cyrillic`.
    other_script: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the lines' texts in reading order."""
        return tuple(line.text for line in self.lines)


def read_pack_text(path: Path) -> dict[str, PackText]:
    """Return the pack text of each image id, in file order.

    Raises MissingInputError if the file does not exist, StageError with file and line if it is malformed.
    """
    if not path.is_file():
        raise MissingInputError("text of the packs", path, REMEDY)
    found: dict[str, PackText] = {}
    # Not splitlines(): a text may contain U+2028, which JSON does not escape.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            one = from_json(line.decode())
        except (ValueError, RecursionError) as error:
            raise StageError(f"{path}, line {number}: {error}\n{REMEDY}") from error
        if one.image_id in found:
            raise StageError(f"{path}, line {number}: image_id {one.image_id} is not unique\n{REMEDY}")
        found[one.image_id] = one
    return found


def write_pack_text(path: Path, rows: Iterable[PackText]) -> None:
    """Replace `path` by `rows`, sorted by image id; the same rows give the same bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for row in sorted(rows, key=lambda row: (natural_key(row.image_id), row.image_id)):
            # File names that are not UTF-8 contain lone surrogates; write them as JSON escapes (\udcff).
            file.write(f"{to_json(row)}\n".encode("utf-8", "backslashreplace"))


def to_json(row: PackText) -> str:
    """Return one line of JSON."""
    return json.dumps(asdict(row), ensure_ascii=False, allow_nan=False)


def from_json(text: str) -> PackText:
    """Return the row of a JSON line; raises ValueError with the reason if it is malformed."""
    fields = json.loads(text)
    if not isinstance(fields, Mapping):
        raise ValueError("not a JSON object")
    words = {name: _checked(fields, name, str) for name in ("image_id", "file", "sha256", "engine", "status")}
    if words["status"] not in get_args(PackTextStatus):
        raise ValueError(f"status {words['status']!r} is not one of {', '.join(get_args(PackTextStatus))}")
    lines = tuple(_line(one) for one in _checked(fields, "lines", list))
    if bool(lines) != (words["status"] == "read"):
        raise ValueError(f"status {words['status']} with {len(lines)} lines")
    others = {name: _checked({name: "", **fields}, name, str) for name in ("reason", "other_script")}
    return PackText(**words, **others, lines=lines)


def _line(fields: Any) -> TextLine:
    if not isinstance(fields, Mapping):
        raise ValueError("a line is not a JSON object")
    corners = _checked(fields, "box", list)
    if [len(corner) if isinstance(corner, list) else 0 for corner in corners] != [2, 2, 2, 2]:
        raise ValueError("a box does not have four corners (x, y)")
    box = tuple(tuple(_number(value) for value in corner) for corner in corners)
    return TextLine(
        text=_checked(fields, "text", str),
        confidence=_number(fields.get("confidence")),
        box=box,  # type: ignore[arg-type]
        height=_number(fields.get("height")),
    )


def _checked(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is no {'text' if kind is str else kind.__name__}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
