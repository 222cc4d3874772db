"""Lines are grouped with the ones below them in their column, and with those that follow in reading order."""

import pytest

from skincare.text_reading.line_groups import LineGroups, is_lettered
from skincare.text_reading.pack_text import TextLine


def line(text, left, top, width=0.2, height=0.05):
    right, bottom = left + width, top + height
    return TextLine(text, 0.99, ((left, top), (right, top), (right, bottom), (left, bottom)), height)


def groups_of(*lines):
    return {tuple(one.text for one in group) for group in LineGroups(lines)}


def test_two_columns_are_grouped_downwards_and_in_reading_order():
    paula, baby, choice, bright = (
        line("PAULA'S", 0.1, 0.1), line("BABY", 0.6, 0.1), line("CHOICE", 0.1, 0.16), line("BRIGHT", 0.6, 0.16)
    )  # fmt: skip
    assert groups_of(paula, baby, choice, bright) == {
        ("PAULA'S",), ("BABY",), ("CHOICE",), ("BRIGHT",),
        ("PAULA'S", "CHOICE"), ("BABY", "BRIGHT"),
        ("PAULA'S", "BABY"), ("BABY", "CHOICE"), ("CHOICE", "BRIGHT"),
        ("PAULA'S", "BABY", "CHOICE"), ("BABY", "CHOICE", "BRIGHT"),
    }  # fmt: skip


def test_a_group_has_three_lines_at_most():
    column = [line(text, 0.1, 0.1 + 0.06 * i) for i, text in enumerate("abcd")]
    assert groups_of(*column) == {*map(tuple, "abcd"), *map(tuple, ("ab", "bc", "cd", "abc", "bcd"))}


@pytest.mark.parametrize(
    ("other", "is_below"),
    [
        (line("b", 0.1, 0.16), True),
        (line("b", 0.1, 0.2), True),
        (line("b", 0.1, 0.3), False),  # too far
        (line("b", 0.25, 0.16), False),  # a quarter of its width is below
        (line("b", 0.15, 0.16, width=0.1), True),  # all of the narrower line
        (line("b", 0.1, 0.11), False),  # next to it
        (line("b", 0.1, 0.04), False),  # above it
    ],
)
def test_the_line_below_is_near_and_in_the_same_column(other, is_below):
    first = line("a", 0.1, 0.1)
    assert (LineGroups([first, other]).below(first) is other) == is_below


def test_the_nearest_line_is_the_next_one():
    first, far, near = line("a", 0.1, 0.1), line("c", 0.1, 0.19), line("b", 0.1, 0.155)
    assert LineGroups([first, far, near]).below(first) is near
    assert LineGroups([]).lines == ()


def test_a_single_letter_is_a_logo():
    assert [is_lettered(line(text, 0, 0)) for text in ("ab", "a 1", "木", "12", "")] == [True, *[False] * 4]
