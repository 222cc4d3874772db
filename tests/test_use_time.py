"""When a product is used is taken from words that state it, never from what they suggest."""

import pytest

from skincare.product.use_time import use_time_in_directions, use_time_in_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pai Chamomile Calming Day Cream 50ml", "morning"),
        ("Fade Out Day Cream SPF 25", "morning"),
        ("Eucerin Anti-Pigment SPF30 Day Cream", "morning"),
        ("NIP+FAB Day Wash", "morning"),
        ("COSRX Low pH Good Morning Cleanser", "morning"),
        ("Elemis Pro-Collagen Night Cream", "night"),
        ("Overnight Glow Serum", "night"),
        ("Retinol Fusion PM 30ml", "night"),
        ("Revive Evening Bath Oil", "night"),
        ("Medik8 Day and Night Eye Serum", "morning and night"),
        ("Retinol AM & PM", "morning and night"),
        ("Take The Day Off Cleansing Balm", None),
        ("Take The Day Off Balm", None),
        ("7 Day Scrub Cream", None),
        ("Midnight Recovery Oil", None),
        ("SPF 50 Fluid", None),
        ("Beauty Sleep Concentrate", None),
        ("Evening Primrose Face Oil", None),
        ("Night-Blooming Jasmine Bath Oil", None),
        ("All Day Cream", None),
        ("Bio Goji Tagespflege", "morning"),
        ("Crème de jour", "morning"),
        ("Crema Giorno", "morning"),
        ("Crema de día", "morning"),
        ("дневной крем", "morning"),
        ("kem dưỡng ban ngày", "morning"),
        ("Water Sleeping Mask_EX", "night"),
        ("NACHTCREME", "night"),
        ("Crema Notte", "night"),
        ("Crema de noche", "night"),
        ("ночной крем", "night"),
        ("晚霜", "night"),
        ("Kem dưỡng ban đêm", "night"),
        ("Soin jour & nuit", "morning and night"),
        ("", None),
    ],
)
def test_of_a_name(name, expected):
    assert use_time_in_name(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Apply morning and evening.", "morning and night"),
        ("Use AM and PM.", "morning and night"),
        ("Massage in before bed.", "night"),
        ("Use each morning under make-up", "morning"),
        ("Apply at night. Do not use in the morning.", "night"),
        ("Smooth over clean skin.", None),
        ("Rich in evening primrose oil.", None),
        ("I am sure", None),
    ],
)
def test_of_directions(text, expected):
    assert use_time_in_directions(text) == expected
