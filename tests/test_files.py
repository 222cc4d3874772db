"""File replacement is atomic: a reader, or a restart after a power failure, finds the old or the new content."""

import os
from pathlib import Path

import pytest

from skincare import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_open_reader_keeps_the_old_content(tmp_path):
    path, held = tmp_path / "table.csv", tmp_path / "held"
    files.write_text(path, "old")
    os.link(path, held)  # stands for an open file descriptor
    files.write_text(path, "new")
    assert (path.read_text(), held.read_text()) == ("new", "old"), "replaced by rename, never rewritten in place"


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("replace"), replace(self, target)))
    files.write_text(tmp_path / "a", "x")
    assert done == ["fsync", "replace"]
    with files.replacing(tmp_path / "b", is_durable=False) as temporary:
        temporary.write_text("x")
    assert done == ["fsync", "replace", "replace"], "a file that is not durable is not synced"


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.csv"])


def test_parent_folders_are_created_and_line_endings_are_kept(tmp_path):
    files.write_text(tmp_path / "new" / "folder" / "a", "é\nb\r\n")
    assert (tmp_path / "new" / "folder" / "a").read_bytes() == "é\nb\r\n".encode()
    assert names(tmp_path / "new" / "folder") == ["a"]


def test_nan_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_file_is_copied_again_only_if_size_or_time_differs(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("one")
    files.copy_if_changed(source, target)
    number = target.stat().st_ino
    files.copy_if_changed(source, target)
    assert target.stat().st_ino == number
    source.write_text("two")
    os.utime(source, ns=(0, 1))
    files.copy_if_changed(source, target)
    assert (target.read_text(), target.stat().st_mtime_ns) == ("two", 1)
    target.write_text("tw")  # truncated by a power failure, with the original time
    os.utime(target, ns=(0, 1))
    files.copy_if_changed(source, target)
    assert target.read_text() == "two"


def test_pipes_and_folders_are_not_replaced(tmp_path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with pytest.raises(OSError, match="no file that can be replaced"):
            files.write_text(path, "new")
    assert pipe.is_fifo()
    assert names(tmp_path) == ["folder", "pipe"]
