"""Others' text becomes plain, bounded values with where they came from, or nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare.collecting.metadata import FIELDS, LIMITS, Fact, clean, clean_currency, clean_price, clean_text, merge


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  Skin\n Food\t75ml ", "Skin Food 75ml"),
        ("Crème &amp; Balm&nbsp;", "Crème & Balm"),
        ("Crème &amp;amp; Balm&amp;nbsp;x", "Crème & Balm x"),
        ("<p>One</p><p>Two<br/>Three</p>", "One Two Three"),
        ("&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
        ("&amp;lt;i onclick=&quot;x&quot;&amp;gt;Sly&amp;lt;/i&amp;gt;", "Sly"),
        ("<script>alert(1)</script>Hi<style>p{}</style> you<!-- hidden -->", "Hi you"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;Hi", "Hi"),
        ("Hi<script>never closed", "Hi"),
        ("SPF < 50 and > 30, 3<4", "SPF < 50 and > 30, 3<4"),
        ("a\x00b\x1b[31mc", "a b [31mc"),
        ("evil\u202etxt.exe\u200b\ufeff", "eviltxt.exe"),
        ("half \ud800 pair", "half pair"),
        ("&#0;&#x1F600;&#99999999;", "\ufffd😀\ufffd"),
        (12, "12"),
        (12.5, "12.5"),
        (10**400, ""),
        (float("nan"), ""),
        (True, ""),
        (None, ""),
        (["a"], ""),
        ({"a": 1}, ""),
    ],
)
def test_text_is_made_plain(value, text):
    assert clean_text(value, 100) == text


def test_long_text_is_cut_with_a_mark():
    assert clean_text("word " * 100, 13) == "word word wo…"
    assert len(clean_text("x" * 10_000_000, 4000)) == 4000


@pytest.mark.parametrize(
    ("value", "price"),
    [
        ("35.0", "35.00"), (35, "35.00"), (12.345, "12.35"), ("£1,299.00", "1299.00"), ("1.299,00 €", "1299.00"),
        ("12,50 €", "12.50"), ("1 299 kr", "1299.00"), ("&pound;12.00", "12.00"), ("<b>Now</b> $5", "5.00"),
        ("0", ""), ("0.00", ""), (-3, ""), ("-3.00", ""), ("Free", ""), ("", ""), (None, ""), (True, ""),
        ("10.00 - 15.00", ""), ("£10.00 £15.00", ""), ("10.00 15.00", ""), ("1e5", ""), ("NaN", ""),
        (float("inf"), ""), (10**400, ""), ("9" * 50, ""),
        ("24.990", "24990.00"), ("1 234 567 Ft", "1234567.00"), ("9999999999", ""), (["5"], ""), ("٣٥", ""),
    ],
)  # fmt: skip
def test_price_is_one_amount_that_a_product_may_cost(value, price):
    assert clean_price(value) == price


@pytest.mark.parametrize(("value", "code"), [("gbp", "GBP"), (" EUR ", "EUR"), ("£", ""), ("EURO", ""), (None, "")])
def test_currency_is_a_code(value, code):
    assert clean_currency(value) == code


def test_the_first_source_with_something_usable_wins():
    offers = [("json_ld", {"name": " ", "brand": "Weleda"}), ("page", {"name": "Skin Food", "brand": "WELEDA"})]
    assert merge(offers) == {"name": Fact("Skin Food", "page"), "brand": Fact("Weleda", "json_ld")}


@pytest.mark.parametrize(
    ("offers", "expected"),
    [
        ([("json_ld", {"price": "12", "currency": "GBP"}), ("page", {"price": "£9"})], ("12.00", "GBP")),
        ([("json_ld", {"price": "0", "currency": "USD"}), ("page", {"price": "9,50 €"})], ("9.50", "EUR")),
        ([("json_ld", {"price": "12"}), ("open_graph", {"price": "11", "currency": "USD"})], ("12.00", None)),
        ([("page", {"price": "$12"})], ("12.00", None)),
        ([("json_ld", {"currency": "GBP"})], (None, None)),
    ],
)
def test_price_and_currency_come_from_one_place(offers, expected):
    facts = merge(offers)
    assert tuple(facts[field].value if field in facts else None for field in ("price", "currency")) == expected


def test_facts_come_in_the_order_of_the_columns():
    assert list(merge([("x", dict.fromkeys(reversed(FIELDS), "5"))])) == [f for f in FIELDS if f != "currency"]


@given(st.sampled_from(FIELDS), st.text() | st.text("<>&;/!-script#lt", max_size=60) | st.floats() | st.integers())
def test_any_value_gives_bounded_plain_text(field, value):
    text = clean(field, value)
    assert len(text) <= LIMITS[field]
    assert text == " ".join(text.split())
    assert all(unicodedata.category(character)[0] != "C" for character in text)
    assert "<script>" not in text.lower()


def test_price_and_currency_name_their_source():
    facts = merge([("json_ld", {"price": "0"}), ("page", {"price": "9,50 €"})])
    assert (facts["price"].source, facts["currency"].source) == ("page", "page")


@pytest.mark.parametrize(("value", "text"), [(10**15 - 1, "999999999999999"), (10**15, ""), (-(10**15), "")])
def test_integers_have_at_most_15_digits(value, text):
    assert clean_text(value, 100) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a<script>b</style>c</script>d", "a d"),
        ("a<style>b<script>c</style>d", "a d"),
        ("a<!-- <script> -->b</script>c", "a b c"),
        ("a</script>b-->c", "a b-->c"),
        ("a<script>b", "a"),
    ],
)
def test_scripts_styles_and_comments_end_at_their_own_mark(markup, text):
    assert clean_text(markup, 100) == text


def test_text_of_exactly_the_limit_is_kept_whole():
    assert (clean_text("abcd", 4), clean_text("abcde", 4)) == ("abcd", "abc…")
