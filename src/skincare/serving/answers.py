"""The JSON of the service: what a client gets for each image, and for an error.

The row of an image has the fields of a JSON line of predict.py, and with `detail` also `lines` and `overlay`.
"""

from typing import Any, Final

from pydantic import BaseModel, Field

from skincare.inference.image_predictions import ImagePrediction, Outcome, failed
from skincare.product.schema import Product
from skincare.prompts import Target

_PRODUCT_KEYS: Final = frozenset(["product", "confidences"])


class RankedLabel(BaseModel):
    """A label with its probability."""

    label: str
    probability: float


class TextLine(BaseModel):
    """One line of text on the image. `box`: corners relative to width and height, clockwise from the top left."""

    text: str
    confidence: float
    box: list[tuple[float, float]]


class ImageAnswer(BaseModel):
    """The prediction of one image; `status` says how it was found or why there is no category."""

    file: str = Field(description="Name of the uploaded file, or the URL")
    outcome: Outcome = Field(description="answered; abstained: no category; failed: the image could not be classified")
    category: str | None = None
    parent: str | None = Field(None, description="The family of the category, where the labels have families")
    probability: float | None = None
    status: str
    reason: str = Field("", description="Why the image failed")
    answer: str = Field("", description="The phrases that decided, or the text that the model generated")
    top: list[RankedLabel] = Field(default_factory=list, description="The most likely labels, best first")
    text: list[str] = Field(default_factory=list, description="The text on the image, if it was read")
    lines: list[TextLine] = Field(default_factory=list, description="detail=true: the text with its place")
    overlay: str = Field("", description="detail=true: where the model found evidence, a JPEG as data URI")
    rival: str = Field("", description="The label against which the overlay contrasts the answer")
    product: Product | None = Field(None, description="target=product: the structured answer; null where there is none")
    confidences: dict[str, float] | None = Field(
        None,
        description="target=product: field -> probability of its value, also of one that is null below its threshold",
    )


class PredictResponse(BaseModel):
    """The answers to one request, in the order of its images."""

    predictions: list[ImageAnswer]
    predictor: str = Field(description="What answered: the reader, a model, or their fusion")
    seconds: float = Field(description="Time from acceptance to answer")


class ErrorResponse(BaseModel):
    """An error: a reason for programs, and a sentence for people."""

    error: str
    detail: str = ""


class ReadyResponse(BaseModel):
    """The state of the service; `status` is ready, starting or draining."""

    status: str
    predictor: str = ""
    workers: int = 0
    queue: int = 0


def plain_answer(answer: ImageAnswer, target: Target, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return an answer as JSON types; without the structured answer for the target `category`."""
    of_products = frozenset() if target == "product" else _PRODUCT_KEYS
    found: dict[str, Any] = answer.model_dump(mode="json", exclude=set(leave_out | of_products))
    return found


def image_answer(row: ImagePrediction, **details: Any) -> ImageAnswer:
    """Return the answer of a prediction with its details."""
    return ImageAnswer(**row.to_json(), **details)


def failed_answer(file: str, reason: str) -> ImageAnswer:
    """Return the answer for an image that the service could not classify."""
    return image_answer(failed(file, reason, "failed"))
