import json
from dataclasses import replace

import pytest

from skincare.errors import MissingInputError, StageError
from skincare.text_reading.pack_text import PackText, TextLine, from_json, read_pack_text, to_json, write_pack_text
from skincare.text_reading.reading_order import in_reading_order

BOX = ((0.1, 0.2), (0.5, 0.2), (0.5, 0.3), (0.1, 0.3))
LINE = TextLine("Clay Mask", 0.98, BOX, 0.1)
ROW = PackText("12_2", "a/b_12_2.jpg", "9f", "drawn 1", "read", "", (LINE,))


def boxed(text, left, top, right, bottom):
    return TextLine(text, 1.0, ((left, top), (right, top), (right, bottom), (left, bottom)), bottom - top)


def test_write_and_read_round_trip(tmp_path):
    rows = [
        ROW,
        PackText("12_10", "c.jpg", "aa", "drawn 1", "no_text", "", (), "cyrillic"),
        PackText("x", "d.jpg", "", "drawn 1", "failed", "OSError: \u2028 no", ()),
        replace(ROW, image_id="3", lines=(replace(LINE, text='КРЕМ "\u2028\n<|im_end|>\\'),)),
    ]
    path = tmp_path / "deep" / "pack_text.jsonl"
    write_pack_text(path, rows)
    assert list(read_pack_text(path)) == ["3", "12_2", "12_10", "x"]
    assert {row.image_id: row for row in rows} == read_pack_text(path)
    assert ROW.texts == ("Clay Mask",)


def test_same_rows_give_same_bytes_in_any_order(tmp_path):
    rows = [replace(ROW, image_id=f"7_{n}") for n in range(12)]
    write_pack_text(tmp_path / "a", rows)
    write_pack_text(tmp_path / "b", rows[::-1])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_missing_file_names_the_stage(tmp_path):
    with pytest.raises(MissingInputError, match=r"python src/read_text\.py") as caught:
        read_pack_text(tmp_path / "pack_text.jsonl")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": "maybe"}, "status 'maybe' is not one of"),
        ({"status": "no_text"}, "status no_text with 1 lines"),
        ({"lines": []}, "status read with 0 lines"),
        ({"lines": None}, "lines is no list"),
        ({"lines": ["Mask"]}, "a line is not a JSON object"),
        ({"sha256": 12}, "sha256 is no text"),
        ({"reason": None}, "reason is no text"),
        ({"lines": [{"text": 1, "confidence": 1, "box": BOX, "height": 0.1}]}, "text is no text"),
        ({"lines": [{"text": "a", "confidence": "1", "box": BOX, "height": 0.1}]}, "'1' is no number"),
        ({"lines": [{"text": "a", "confidence": float("nan"), "box": BOX, "height": 0.1}]}, "nan is no number"),
        ({"lines": [{"text": "a", "confidence": 1, "box": BOX[:3], "height": 0.1}]}, "four corners"),
        ({"lines": [{"text": "a", "confidence": 1, "box": [1, 2, 3, 4], "height": 0.1}]}, "four corners"),
        ({"lines": [{"text": "a", "confidence": 1, "box": BOX}]}, "None is no number"),
    ],
)
def test_malformed_rows_raise_with_line_number(tmp_path, change, complaint):
    path = tmp_path / "pack_text.jsonl"
    path.write_text(to_json(ROW) + "\n\n" + json.dumps(json.loads(to_json(replace(ROW, image_id="b"))) | change))
    with pytest.raises(StageError, match="line 3: .*" + complaint):
        read_pack_text(path)


@pytest.mark.parametrize("line", [b"[]", b"{", b"\xff\xfe", b'"text"', b"null", b"[" * 100_000])
def test_invalid_lines_raise(tmp_path, line):
    path = tmp_path / "pack_text.jsonl"
    path.write_bytes(line)
    with pytest.raises(StageError, match="line 1: "):
        read_pack_text(path)


def test_duplicate_id_raises(tmp_path):
    path = tmp_path / "pack_text.jsonl"
    path.write_text(f"{to_json(ROW)}\n{to_json(ROW)}\n")
    with pytest.raises(StageError, match="12_2 is not unique"):
        read_pack_text(path)


def test_unknown_fields_are_ignored():
    assert from_json(json.dumps(json.loads(to_json(ROW)) | {"colour": 3})) == ROW


def test_words_of_a_text_row_are_sorted_left_to_right():
    lines = [
        boxed("ml", 0.5, 0.80, 0.6, 0.84),
        boxed("50", 0.4, 0.805, 0.45, 0.845),
        boxed("Cream", 0.4, 0.30, 0.9, 0.40),
        boxed("Day", 0.1, 0.31, 0.3, 0.41),
        boxed("BRAND", 0.2, 0.1, 0.8, 0.2),
    ]
    expected = ["BRAND", "Day", "Cream", "50", "ml"]
    assert [line.text for line in in_reading_order(lines)] == expected
    assert [line.text for line in in_reading_order(lines[::-1])] == expected
    assert in_reading_order([]) == []


def test_a_non_utf8_file_name_is_kept(tmp_path):
    row = replace(ROW, image_id="bad\udcff.png")
    write_pack_text(tmp_path / "texts", [row])
    assert read_pack_text(tmp_path / "texts") == {row.image_id: row}
