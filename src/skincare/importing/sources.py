"""Detection of the format of an image source from its files."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from skincare.errors import MissingInputError, StageError
from skincare.importing import shard_source, table_source
from skincare.importing.category_names import CategoryNames
from skincare.importing.columns import Role
from skincare.importing.entries import Source
from skincare.importing.folder_source import FolderSource
from skincare.importing.shard_source import ShardSource
from skincare.importing.table_source import Table, TableSource

_FORMS = "a folder per category, a folder with a table (CSV, TSV, JSONL), a saved `datasets` folder, or Parquet files"
_MAX_DEPTH = 3


def open_source(path: Path, table: Path | None, columns: Mapping[Role, str], names: CategoryNames) -> Source:
    """Return the source of a folder or a table file; `table` selects the table if there are several.

    Raises MissingInputError if there is none, StageError if its format is ambiguous.
    """
    if not path.exists():
        raise MissingInputError("source of images", path, f"It is {_FORMS}.")
    root = path.resolve()
    if root.is_file():
        return _of_file(root, columns, names)
    if not root.is_dir():
        raise StageError(f"{path} is neither a folder nor a file; a source is {_FORMS}")
    if not table and (shards := _shards(root)):
        return ShardSource(root, shards, names, columns)
    tables = [_given_table(table if table.is_file() else root / table)] if table else _tables(root)
    if tables:
        return TableSource(root, tables, names, columns)
    if columns:
        raise StageError(f"--columns needs a table, and {path} holds none; name it with --table")
    return FolderSource(root, names)


def _of_file(path: Path, columns: Mapping[Role, str], names: CategoryNames) -> Source:
    if path.suffix.lower() in table_source.SUFFIXES:
        return TableSource(path.parent, [Table(path)], names, columns, lists_all=False)
    if path.suffix in shard_source.SUFFIXES:
        return ShardSource(path.parent, [path], names, columns)
    raise StageError(f"{path} is no source of images; a source is {_FORMS}")


def _given_table(path: Path) -> Table:
    if not path.is_file():
        raise MissingInputError("table", path, "It is named by --table.")
    if path.suffix.lower() not in table_source.SUFFIXES:
        raise StageError(f"{path}: a table ends in {', '.join(sorted(table_source.SUFFIXES))}")
    return Table(path.resolve())


def _tables(root: Path) -> list[Table]:
    """Return Hugging Face's metadata files, else the only table in the folder itself."""
    metadata = _files(root, lambda name: name in ("metadata.csv", "metadata.jsonl"))
    if metadata:
        return [Table(path) for path in metadata]
    own = sorted(path for path in root.iterdir() if path.suffix.lower() in table_source.SUFFIXES and path.is_file())
    if len(own) > 1:
        raise StageError(f"{root} holds several tables; name one with --table: {', '.join(p.name for p in own[:10])}")
    return [Table(path) for path in own]


def _shards(root: Path) -> list[Path]:
    """Return the Parquet files, or the Arrow files of a saved `datasets` folder."""
    files = _files(root, lambda name: Path(name).suffix in shard_source.SUFFIXES)
    parquet = [path for path in files if path.suffix == ".parquet"]
    saved = [path for path in files if path.suffix == ".arrow" and (path.parent / "dataset_info.json").is_file()]
    # `datasets` writes its cache of derived data next to a saved folder.
    return parquet or [path for path in saved if not path.name.startswith("cache-")]


def _files(root: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    """Return the sorted regular files with the given names down to a small depth; links are not followed."""
    found = []
    for folder, inner, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        inner[:] = sorted(inner) if depth < _MAX_DEPTH else []
        paths = (Path(folder, name) for name in names if is_wanted(name))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(found)
