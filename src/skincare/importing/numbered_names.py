"""File names that number the images of a product: `rose-toner_1.jpg`, `rose-toner_2.jpg`, `mask (3).png`."""

import re
from pathlib import PurePosixPath
from typing import Final, NamedTuple

_NUMBERED: Final = re.compile(r"(?P<product>.*?[^ _.()-])[ _.-]*[ _.(-](?P<n>[0-9]{1,2})\)?")


class NumberedName(NamedTuple):
    """Parts of a file name; base and stem include label and folder, so equal ones belong together.

    base: without the number; number: -1 if the name has none; stem: with the number.
    """

    base: str
    number: int
    stem: str


def split_number(stem: str) -> tuple[str, int]:
    """Return the common part and the number of a name: "rose-toner_2" -> ("rose-toner", 2); -1 without a number."""
    found = _NUMBERED.fullmatch(stem)
    return (found["product"], int(found["n"])) if found else (stem, -1)


def numbered_name(label: str, place: str) -> NumberedName:
    """Return the parts of the file name of an image of a label."""
    path = PurePosixPath(place)
    common, number = split_number(path.stem)
    where = f"{label}/{path.parent}"
    return NumberedName(f"{where}/{common}", number, f"{where}/{path.stem}")
