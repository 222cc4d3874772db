"""Temporary files of killed runs are removed after a day; everything else stays."""

import os

from skincare import files, leftovers
from skincare.paths import Layout


def test_what_a_killed_run_left_is_removed_after_a_day(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    table, model = layout.clean_table, layout.exported_model("m")
    files.write_text(table, "old")
    # A kill leaves what an exception would remove.
    monkeypatch.setattr(files, "uuid4", lambda: type("Fixed", (), {"hex": "0" * 32}))
    for path in (table.parent, model.parent):
        path.mkdir(parents=True, exist_ok=True)
    of_table, of_model = (folder / f".{'0' * 32}.part" for folder in (table.parent, model.parent))
    with files.replacing(table) as temporary:
        assert temporary == of_table
        temporary.write_text("new")
    of_table.write_text("of a killed run")
    of_model.mkdir()
    (of_model / "model.safetensors").write_text("of a killed run")
    mine = table.parent / ".mine.part"
    mine.write_text("of the user")
    assert leftovers.remove(layout) == 0, "another run may be writing them"
    for path in (of_table, of_model, mine, table):
        os.utime(path, (0, 0))
    assert leftovers.remove(layout) == 2
    assert not of_table.exists()
    assert not of_model.exists()
    (table.parent / f".{'1' * 32}.part").symlink_to(tmp_path)
    os.utime(table.parent / f".{'1' * 32}.part", (0, 0), follow_symlinks=False)
    assert leftovers.remove(layout) == 0, "a link to a folder is not followed, and no error"
    assert (table.read_text(), mine.read_text()) == ("new", "of the user")
