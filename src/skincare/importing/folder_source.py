"""Image source with one folder per category: `Cleanser/rose.jpg`, `train/Bath_Salts/<product>/1.png`."""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skincare.importing.category_names import CategoryNames
from skincare.importing.entries import Entry, Refusal


def printable(path: str) -> str:
    """Return a path as UTF-8 text; invalid bytes are written as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def walk(root: Path, skip: Collection[Path] = ()) -> Iterator[Path | Refusal]:
    """Yield every regular file below `root` in sorted order, and a refusal for everything else.

    A symbolic link to a file is followed if its target is below the resolved `root`; linked folders are not entered.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError as error:
            yield Refusal(place_of(folder, root), "unreadable_folder", error.strerror or "")
            continue
        inner: list[Path] = []
        for name in names:
            path = folder / name
            if path in skip:
                continue
            found = _checked(path, root)
            if isinstance(found, Refusal):
                yield found
            elif found == "folder":
                inner.append(path)
            else:
                yield path
        folders += reversed(inner)


def _checked(path: Path, root: Path) -> Literal["file", "folder"] | Refusal:
    """Return the path of a file to import, or the reason why it is not imported."""
    place = place_of(path, root)
    try:
        mode = path.stat().st_mode
        is_inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError) as error:
        return Refusal(place, "unreadable_file", str(getattr(error, "strerror", "")) or "a loop of links")
    if not is_inside:
        return Refusal(place, "outside_source", "a symbolic link to another place")
    if stat.S_ISDIR(mode):
        return Refusal(place, "symlinked_folder", "linked folders are not entered") if path.is_symlink() else "folder"
    return "file" if stat.S_ISREG(mode) else Refusal(place, "not_a_file", "a device, pipe or socket")


def place_of(path: Path, root: Path) -> str:
    """Return a path relative to the source, as written to the tables."""
    return printable(path.relative_to(root).as_posix())


def category_of(parts: tuple[str, ...], names: CategoryNames) -> tuple[str, str]:
    """Return the category from the folders of a file, and the folder below it.

    The category is the innermost folder that is a label; without one, the outermost folder, rejected as unknown.
    """
    for i in reversed(range(len(parts))):
        if names.find(parts[i]):
            return parts[i], "/".join(parts[i + 1 :])
    return (parts[0] if parts else ""), ""


@dataclass(frozen=True)
class FolderSource:
    """Images below a folder; one of the parent folders of each gives its category."""

    root: Path
    names: CategoryNames

    @property
    def description(self) -> str:
        """Return the form of the source."""
        return "one folder per category"

    @property
    def columns(self) -> dict[str, str]:
        """Return an empty mapping, since there is no table."""
        return {}

    def items(self) -> Iterator[Entry | Refusal]:
        """Yield every file."""
        for found in walk(self.root):
            if isinstance(found, Refusal):
                yield found
                continue
            place = place_of(found, self.root)
            category, folder = category_of(tuple(place.split("/")[:-1]), self.names)
            yield Entry(place, found, category, folder=folder)
