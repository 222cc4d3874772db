"""The category that a structured answer names: the text of an answer in, a parsed `Answer` out.

Training, history and confusion matrices of structured answers are about their category; `score_products.py` scores all
fields.
"""

from skincare.inference.answer_parser import Answer, parser_of
from skincare.labels import Labels
from skincare.product.json_answers import parse_product
from skincare.product.schema import Product
from skincare.prompts import Target


def parse_answer(text: str, labels: Labels, target: Target, *, is_finished: bool) -> Answer:
    """Return the label of an answer to the question of a target; of JSON without a category the status says why."""
    if target == "category":
        return parser_of(labels).parse(text, is_finished=is_finished)
    parsed = parse_product(text)
    if parsed.product is not None and parsed.product.category is not None:
        return parser_of(labels).parse(parsed.product.category)
    if parsed.status == "empty":
        return Answer(None, "empty", ())
    return Answer(None, "truncated" if not is_finished else "offlist", ())


def with_label(product: Product, labels: Labels) -> Product:
    """Return a product whose category is the label that its text names, or null if it names none.

    Text generated without a constraint may name any category: "Moisturizer" -> "Moisturiser", "Lipstick" -> null.
    """
    if product.category is None or product.category in labels.names:
        return product
    return product.model_copy(update={"category": parser_of(labels).parse(product.category).category})
