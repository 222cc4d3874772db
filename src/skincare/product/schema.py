"""The structured answer: one product as JSON, with the field names of the published experiment.

    {"brand":"Weleda","category":"Oil","country":null,...,"size":"100 ml","forNightOrMorning":null}

Every field is present, in this order; null says that the value is not known. JSON is compact and not escaped to ASCII,
so that an answer has as few tokens as possible.
"""

import json
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skincare.product.use_time import UseTime

MAX_CHARACTERS: Final = 2000
MAX_INGREDIENTS: Final = 200

Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
Ingredients = Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_INGREDIENTS, strict=False)]


class Product(BaseModel):
    """A product as an image or a page shows it; None where a value is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    brand: Text | None = None
    category: Text | None = None
    country: Text | None = None
    details: Text | None = None
    howToUse: Text | None = None  # noqa: N815 - a published field name
    ingredients: Ingredients | None = None
    manufacturer: Text | None = None
    name: Text | None = None
    origin: Text | None = None
    size: Text | None = None
    forNightOrMorning: UseTime | None = None  # noqa: N815 - a published field name

    def to_json(self) -> str:
        """Return the product as an answer has it: every field, in order, without blanks."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))


FIELDS: Final[tuple[str, ...]] = tuple(Product.model_fields)


def canonical_product(text: str) -> Product:
    """Return the product of a dataset's answer; ValueError where the text is not what `Product.to_json` writes."""
    try:
        product = Product.model_validate_json(text)
    except ValidationError:
        product = None
    if product is None or product.to_json() != text:
        raise ValueError(
            f"{text[:200]!r} is no structured answer: one line of JSON with the fields {', '.join(FIELDS)}"
        )
    return product


def json_schema() -> dict[str, Any]:
    """Return the JSON schema that constrained decoding follows: every field required, in order."""
    schema = Product.model_json_schema()
    schema["required"] = list(FIELDS)
    return schema


def invalid_fields(values: dict[str, Any]) -> dict[str, str]:
    """Return field -> why its value does not fit the schema; unknown fields are included, absent ones are not."""
    try:
        Product.model_validate(values)
    except ValidationError as error:
        return {str(one["loc"][0]): one["msg"] for one in error.errors() if one["loc"]}
    return {}
