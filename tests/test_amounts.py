"""Amounts as shops write them all over the world, and as they write them for machines."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skincare.collecting.amounts import MAX_AMOUNT, amount_of, amounts_in, currency_in, has_sign, machine_amount, tidy


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("£1,299.00", "1299.00", "GBP"), ("1.299,00 €", "1299.00", "EUR"), ("12,5 zł", "12.5", "PLN"),
        ("44 890 тг.", "44890", "KZT"), ("1 299,00 Kč", "1299.00", "CZK"), ("30,000원", "30000", "KRW"),
        ("$24.990", "24990", ""), ("R$ 1.759,99", "1759.99", "BRL"), ("NT$294", "294", "TWD"),
        ("₪1,679", "1679", "ILS"),
        ("₹1,29,999.00", "129999.00", "INR"), ("1'299.- CHF", "1299", "CHF"), ("Fr. 19.50", "19.50", "CHF"),
        ("173.34 Lei", "173.34", "RON"),
        ("USD 12", "12", "USD"), ("12,-", "12", ""), ("1 234 567 Ft", "1234567", "HUF"),
        ("270,00 Kn", "270.00", "HRK"), ("199 kr", "199", ""), ("free", None, ""), ("£0.00", None, "GBP"),
        ("v1.2.3", None, ""), ("9999999999", None, ""),
    ],
)  # fmt: skip
def test_amounts_are_read_as_written(text, amount, currency):
    assert amount_of(text) == (Decimal(amount) if amount else None)
    assert currency_in(text) == currency


def test_money_of_a_thousandth_part_has_three_decimals():
    assert amount_of("12.500", "KWD") == Decimal("12.500")
    assert amount_of("12.500", "EUR") == 12500


@pytest.mark.parametrize(
    ("value", "currency", "amount"),
    [
        ("49.9900", "EUR", "49.99"), ("49.990000", "", "49.99"), ("24.990", "EUR", "24.99"), ("24.990", "CLP", "24990"),
        ("24990", "CLP", "24990"), ("1.299,00", "EUR", "1299"), ("1,299.00", "GBP", "1299"), (15, "GBP", "15"),
        (12.5, "GBP", "12.5"), ("30,000원~", "KRW", "30000"), ("10.00 - 15.00", "GBP", None), (True, "GBP", None),
        (None, "GBP", None), ("0", "GBP", None), (float("nan"), "", None), ({"x": 1}, "", None), (10**20, "", None),
    ],
)  # fmt: skip
def test_amounts_for_machines_have_a_point_before_decimals(value, currency, amount):
    assert machine_amount(value, currency) == (Decimal(amount) if amount else None)


@pytest.mark.parametrize(
    ("text", "tidied"), [("12€99", "12.99 €"), (" 12 € ", "12 €"), ("12 €9", "12 €9"), ("3€ 50", "3.50 €")]
)
def test_a_sign_may_stand_for_the_point(text, tidied):
    assert tidy(text) == tidied


def test_a_sign_is_no_part_of_a_word():
    assert not has_sign("tgif krill Feet")
    assert has_sign("12 kr")
    assert currency_in("£5 or €6") == ""


@given(st.text() | st.text("0123456789 .,'€$£-x", max_size=40))
def test_any_text_gives_amounts_in_bounds(text):
    for found in amounts_in(text):
        amount = amount_of(found.group())
        assert amount is None or 0 < amount < MAX_AMOUNT
    stated = machine_amount(text, "EUR")
    assert stated is None or 0 < stated < MAX_AMOUNT
    currency_in(tidy(text))
