"""Tables round-trip; the error for an invalid cell names file, line and remedy."""

import csv
import dataclasses
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare import files
from skincare.errors import MissingInputError, StageError
from skincare.tables import (
    CATALOGUE,
    FAILURES,
    HISTORY,
    REJECTED,
    STATED_FACTS,
    CatalogueRow,
    FailureRow,
    HistoryRow,
    RejectedRow,
    natural_key,
)

ROW = RejectedRow("https://x/1.html", "1_2", "1", "product_images/a_1_2.jpg", "blurred", "3.5", "60")


def test_rows_round_trip_in_natural_order(tmp_path):
    rows = [dataclasses.replace(ROW, image_id=i) for i in ("1_10", "1_2", "1_1")]
    REJECTED.write(tmp_path / "a.csv", rows)
    REJECTED.write(tmp_path / "b.csv", reversed(rows))
    assert [row.image_id for row in REJECTED.read(tmp_path / "a.csv")] == ["1_1", "1_2", "1_10"]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("text", ['a "quote", a comma', "two\nlines", "ünïcode 🧴", " spaces ", "'=1+1"])
def test_any_text_round_trips(tmp_path, text):
    CATALOGUE.write(tmp_path / "c.csv", [CatalogueRow(text, "https://x/1.html", "Oil")])
    assert CATALOGUE.read(tmp_path / "c.csv")[0].product_name == text


@given(st.text(st.sampled_from("=+-@\t\r\n'＝1a,\" é\0"), max_size=6))
def test_text_from_outside_is_never_a_formula_and_round_trips(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.csv")
        REJECTED.write(path, [dataclasses.replace(ROW, value=text)])
        assert REJECTED.read(path)[0].value == text
        with path.open(newline="", encoding="utf-8") as file:
            cell = next(csv.DictReader(file))["value"]
    assert cell[:1] not in tuple("=+-@\t\r\n＝") or re.fullmatch(r"[+-]1+", cell)


def test_rows_declared_as_sorted_are_checked(tmp_path):
    rows = [dataclasses.replace(ROW, image_id=i) for i in ("1_2", "1_10")]
    REJECTED.write(tmp_path / "r.csv", iter(rows), is_sorted=True)
    assert REJECTED.read(tmp_path / "r.csv") == rows
    with pytest.raises(AssertionError, match="not sorted"):
        REJECTED.write(tmp_path / "r.csv", reversed(rows), is_sorted=True)
    assert REJECTED.read(tmp_path / "r.csv") == rows


def test_missing_values_and_numbers_round_trip(tmp_path):
    rows = [FailureRow("u", "1", "", "timeout", "", None, 5), FailureRow("u", "2", "", "http_404", "", 404, 1)]
    FAILURES.write(tmp_path / "f.csv", rows)
    assert FAILURES.read(tmp_path / "f.csv") == rows
    row = HistoryRow(1, 10, 1e-7, None, None, 0.1 + 0.2, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 2.0)
    HISTORY.write(tmp_path / "h.csv", [row])
    assert HISTORY.read(tmp_path / "h.csv") == [row]


def test_unknown_columns_are_ignored(tmp_path):
    REJECTED.write(tmp_path / "r.csv", [ROW])
    header, row = (tmp_path / "r.csv").read_text().splitlines()
    (tmp_path / "r.csv").write_text(f"note,{header}\nmine,{row}\n")
    assert REJECTED.read(tmp_path / "r.csv") == [ROW]


def test_a_missing_column_file_or_bad_cell_names_the_remedy(tmp_path):
    with pytest.raises(MissingInputError, match=r"clean\.py"):
        REJECTED.read(tmp_path / "none.csv")
    (tmp_path / "r.csv").write_text("product_url,image_id\n")
    with pytest.raises(StageError, match=r"product_id, file, reason.*\n.*clean\.py"):
        REJECTED.read(tmp_path / "r.csv")
    FAILURES.write(tmp_path / "f.csv", [FailureRow("u", "1", "", "timeout", "", None, 5)])
    text = (tmp_path / "f.csv").read_text()
    (tmp_path / "f.csv").write_text(text.replace(",5\n", ",five\n"))
    with pytest.raises(StageError, match="line 2"):
        FAILURES.read(tmp_path / "f.csv")
    (tmp_path / "f.csv").write_text(text.replace(",,5\n", "\n"))
    with pytest.raises(StageError, match="too few cells"):
        FAILURES.read(tmp_path / "f.csv")


HEADER = b"product_id,field,value,source\n"


@pytest.mark.parametrize(("content", "message"), [
    (HEADER.decode().encode("utf-16"), r"r\.csv: not UTF-8 text .*UTF-8"),
    (HEADER + "1,name,Crème,b\n".encode("latin-1"), r"r\.csv: not UTF-8 text"),
    (HEADER + b'1,name,a,b\n"open quote\n', r"r\.csv, line 3: cannot be read"),
    (HEADER + b"1,name," + b"x" * 200_000 + b",b\n", r"r\.csv, line 2: cannot be read .*field limit"),
    (b"product_id,field,value,source,field\n1,name,a,b,size\n", r"r\.csv: more than one column field"),
    (b"", r"r\.csv: no column product_id, field, value, source; the first line is ''"),
    (HEADER.replace(b",", b";"), r"the first line is 'product_id;field;value;source'"),
])  # fmt: skip
def test_a_malformed_file_is_an_error_with_its_place(tmp_path, content, message):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(StageError, match=message):
        STATED_FACTS.read(tmp_path / "r.csv")


def test_natural_order():
    names = ["a10", "a2", "a1", "b1", "a02"]
    assert sorted(names, key=natural_key) == ["a1", "a02", "a2", "a10", "b1"]
    # int() rejects some non-ASCII digits, such as superscripts.
    sorted(["²", "٣", "3"], key=natural_key)
    assert sorted(["9" * 5000, "1" + "0" * 5000, "8", "008"], key=natural_key)[:2] == ["008", "8"]


def test_a_failed_write_leaves_only_the_old_file(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_json_with_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()
