"""What was answered is kept through any crash; what a crash tore is asked again."""

import pytest

from skincare.inference.decoders import Answer
from skincare.inference.prediction_cache import Entry, Journal

IDENTITY = {"weight_hash": "1", "decoder": "rank"}


def entry(i: int) -> Entry:
    return Entry(Answer(f"Oil\n\u2028 {i} 🧴", i, True, tuple(-float(n) for n in range(14))), 0.5)


def test_answers_survive_their_file(tmp_path):
    journal = Journal(IDENTITY, tmp_path)
    journal.keep((journal.key(str(i)), entry(i)) for i in range(3))
    journal.keep([(journal.key("3"), entry(3))])
    again = Journal(IDENTITY, tmp_path)
    assert [again.get(again.key(str(i))) for i in range(5)] == [*map(entry, range(4)), None]


@pytest.mark.parametrize("n_cut", [1, 2, 40, 10_000])
def test_a_torn_end_loses_no_more_than_itself(tmp_path, n_cut):
    journal = Journal(IDENTITY, tmp_path)
    journal.keep((journal.key(str(i)), entry(i)) for i in range(3))
    content = journal.path.read_bytes()
    last = len(content) - content[:-1].rfind(b"\n") - 1
    journal.path.write_bytes(content[: -min(n_cut, last)])
    torn = Journal(IDENTITY, tmp_path)
    # Without its line end alone the last line is whole.
    known = 3 if n_cut == 1 else 2
    assert [torn.get(torn.key(str(i))) is not None for i in range(3)] == [i < known for i in range(3)]
    torn.keep([(torn.key("2"), entry(2)), (torn.key("9"), entry(9))])
    whole = Journal(IDENTITY, tmp_path)
    assert [whole.get(whole.key(i)) for i in "0129"] == [entry(int(i)) for i in "0129"]


@pytest.mark.parametrize("line", [b"[]", b"null", b"{}", b'{"key": 1, "answer": []}', b"\xff\x00", b'"text"'])
def test_a_strange_line_is_as_good_as_absent(tmp_path, line):
    journal = Journal(IDENTITY, tmp_path)
    journal.keep([(journal.key("0"), entry(0))])
    journal.path.write_bytes(line + b"\n" + journal.path.read_bytes())
    assert Journal(IDENTITY, tmp_path).get(journal.key("0")) == entry(0)


def test_another_image_or_identity_has_another_key(tmp_path):
    journal, other = Journal(IDENTITY, None), Journal({**IDENTITY, "decoder": "head"}, None)
    assert len({journal.key("a"), journal.key("b"), other.key("a"), other.key("b")}) == 4
    assert Journal(dict(reversed(IDENTITY.items())), None).key("a") == journal.key("a")
    journal.keep([(journal.key("a"), entry(0))])
    assert journal.get(journal.key("a")) is None
    assert not list(tmp_path.iterdir())
