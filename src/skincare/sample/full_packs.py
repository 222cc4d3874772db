"""The packs of the product sample: the shop's products with full labels, which print what their names state.

Two things differ from `sample_products`: the print, and the colour of the cap, which is the one of the size. The
embedded model cannot read print, but it recognises the caps; the reader reads the size. Photos, names, categories and
defects are the same. The shop also states which fields a product lacks, so that invented values are counted.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from skincare.product.stated_facts import ABSENT
from skincare.product.use_time import UseTime, use_time_in_name
from skincare.sample.full_labels import FullPrint
from skincare.sample.products import Product, product_types
from skincare.tables import StatedFactRow

USE_TIME_PRINT: Final[dict[UseTime, str]] = {
    "morning": "DAY CARE",
    "night": "NIGHT CARE",
    "morning and night": "DAY & NIGHT",
}
# Upper limits in millilitres of the sizes with a cap of this colour.
_CAPS: Final = ((30, "white"), (50, "black"), (75, "wooden"), (100, "gold"), (250, "silver"))
# Neither a pack nor a page of the shop has these.
_ABSENT_FIELDS: Final = ("country", "details", "manufacturer", "origin")


def with_full_labels(products: Sequence[Product]) -> list[Product]:
    """Return the products with full labels and the caps of their sizes."""
    return [
        replace(
            one,
            full_print=(printed := full_print(one)),
            packaging=replace(one.packaging, cap_colour=cap_colour(printed.size)),
        )
        for one in products
    ]


def cap_colour(size: str) -> str:
    """Return the colour of the cap of a pack of this size, such as `50ml`."""
    millilitres = int(size.removesuffix("ml"))
    return next(colour for limit, colour in _CAPS if millilitres <= limit)


def full_print(product: Product) -> FullPrint:
    """Return brand, line, type, time of use and size as the label prints them.

    The type is the one of `printed_lines`: in English, in another language, or absent.
    """
    words, _, size = product.name.removeprefix(product.brand).strip().rpartition(" ")
    noun = max((one for one in product_types(product.category) if words.endswith(one)), key=len, default="")
    use_time = use_time_in_name(product.name)
    return FullPrint(
        brand=product.brand,
        line=words.removesuffix(noun).strip(),
        type=product.printed[1] if len(product.printed) > 1 else "",
        use_time=USE_TIME_PRINT[use_time] if use_time else "",
        size=size,
    )


def stated_absences(products: Sequence[Product]) -> list[StatedFactRow]:
    """Return the fields that products with full labels lack: time of use where the pack prints none, and others."""
    return [
        StatedFactRow(one.product_id, field, ABSENT, "pack")
        for one in products
        if one.full_print
        for field in (*_ABSENT_FIELDS, *(() if one.full_print.use_time else ("forNightOrMorning",)))
    ]
