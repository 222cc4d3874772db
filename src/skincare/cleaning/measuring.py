"""All pictures of a table, looked at once: what changed since the last time is measured, the rest is remembered."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from skincare import engines
from skincare.cleaning import inspection
from skincare.cleaning.inspection import Broken, Inspection, Measures
from skincare.cleaning.measure_store import FileState, MeasureStore
from skincare.engines import Engine
from skincare.paths import Layout
from skincare.tables import ImageRow

# What is no property of the file's content, so may be otherwise next time.
_PASSING = ("missing_file", "unreadable_file", "bad_path")


def inspect_all(
    rows: Sequence[ImageRow], layout: Layout, store: MeasureStore, engine: Engine = "local", *, anew: bool = False
) -> list[Inspection]:
    """Return what is known of each picture, in the order of the rows; `anew` trusts nothing that is remembered."""
    known: dict[str, Measures | Broken] = {}
    changed: dict[str, tuple[Path, FileState]] = {}
    for row in rows:
        found = _look_up(layout, row, store, anew=anew)
        if isinstance(found, Measures | Broken):
            known[row.file] = found
        else:
            changed[row.file] = found
    known.update(_measure(changed, store, engine))
    store.forget_all_but(row.file for row in rows)
    return [_inspection(row, known[row.file]) for row in rows]


def _look_up(
    layout: Layout, row: ImageRow, store: MeasureStore, *, anew: bool
) -> Measures | Broken | tuple[Path, FileState]:
    """Return what is known of a row's file, or where it is and how it stands."""
    try:
        path = inspection.checked_path(layout, row)
        status = path.stat()
    except ValueError as error:
        return Broken("bad_path", str(error))
    except FileNotFoundError:
        return Broken("missing_file")
    except OSError as error:
        return Broken("unreadable_file", error.strerror or "")
    state = FileState(status.st_size, status.st_mtime_ns)
    return (None if anew else store.recall(row.file, state)) or (path, state)


def _measure(
    changed: dict[str, tuple[Path, FileState]], store: MeasureStore, engine: Engine
) -> Iterator[tuple[str, Measures | Broken]]:
    found = engines.in_order(engine, inspection.look_at, (path for path, _ in changed.values()))
    bar = partial(tqdm, desc="clean", total=len(changed), unit="picture", disable=None)
    for (file, (_, state)), (measures, thumbnails) in zip(changed.items(), bar(found), strict=True):
        if not (isinstance(measures, Broken) and measures.reason in _PASSING):
            store.keep(file, state, measures, thumbnails)
        yield file, measures


def _inspection(row: ImageRow, found: Measures | Broken) -> Inspection:
    if isinstance(found, Measures):
        return Inspection(row, found, None)
    return Inspection(row, None, inspection.rejection(row, found.reason, found.detail, ""))
