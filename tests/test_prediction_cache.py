"""Cached predictions survive any crash; an entry that a crash cut off is computed again."""

import os

import pytest

from skincare.inference.decoders import DecoderOutput
from skincare.inference.prediction_cache import CachedOutput, PredictionCache

IDENTITY = {"weight_hash": "1", "decoder": "rank"}


def entry(i: int) -> CachedOutput:
    return CachedOutput(DecoderOutput(f"Oil\n\u2028 {i} 🧴", i, True, tuple(-float(n) for n in range(14))), 0.5)


def test_predictions_are_read_back_unchanged(tmp_path):
    cache = PredictionCache(IDENTITY, tmp_path)
    cache.add((cache.key(str(i)), entry(i)) for i in range(3))
    cache.add([(cache.key("3"), entry(3))])
    again = PredictionCache(IDENTITY, tmp_path)
    assert [again.get(again.key(str(i))) for i in range(5)] == [*map(entry, range(4)), None]


@pytest.mark.parametrize("n_cut", [1, 2, 40, 10_000])
def test_a_truncated_file_loses_only_its_last_entry(tmp_path, n_cut):
    cache = PredictionCache(IDENTITY, tmp_path)
    cache.add((cache.key(str(i)), entry(i)) for i in range(3))
    content = cache.path.read_bytes()
    last = len(content) - content[:-1].rfind(b"\n") - 1
    cache.path.write_bytes(content[: -min(n_cut, last)])
    torn = PredictionCache(IDENTITY, tmp_path)
    # Without its line end alone the last line is whole.
    known = 3 if n_cut == 1 else 2
    assert [torn.get(torn.key(str(i))) is not None for i in range(3)] == [i < known for i in range(3)]
    torn.add([(torn.key("2"), entry(2)), (torn.key("9"), entry(9))])
    whole = PredictionCache(IDENTITY, tmp_path)
    assert [whole.get(whole.key(i)) for i in "0129"] == [entry(int(i)) for i in "0129"]


@pytest.mark.parametrize("line", [b"[]", b"null", b"{}", b'{"key": 1, "answer": []}', b"\xff\x00", b'"text"'])
def test_a_malformed_line_is_ignored(tmp_path, line):
    cache = PredictionCache(IDENTITY, tmp_path)
    cache.add([(cache.key("0"), entry(0))])
    cache.path.write_bytes(line + b"\n" + cache.path.read_bytes())
    assert PredictionCache(IDENTITY, tmp_path).get(cache.key("0")) == entry(0)


def test_another_image_or_identity_has_another_key(tmp_path):
    cache, other = PredictionCache(IDENTITY, None), PredictionCache({**IDENTITY, "decoder": "head"}, None)
    assert len({cache.key("a"), cache.key("b"), other.key("a"), other.key("b")}) == 4
    assert PredictionCache(dict(reversed(IDENTITY.items())), None).key("a") == cache.key("a")
    cache.add([(cache.key("a"), entry(0))])
    assert cache.get(cache.key("a")) is None
    assert not list(tmp_path.iterdir())


def test_predictions_are_synced_to_disk_before_add_returns(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    cache = PredictionCache(IDENTITY, tmp_path)
    monkeypatch.setattr(os, "fsync", lambda number: (fsync(number), synced.append(cache.path.read_bytes())))
    for i in range(2):
        cache.add([(cache.key(str(i)), entry(i))])
        assert synced[i:] == [cache.path.read_bytes()], "once, with the whole content"
