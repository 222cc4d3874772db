"""The chat-format dataset files: one element per image, with a question and the category as the answer.

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "clean_dataset/images/<file>.jpg"},
                                               {"type": "text", "text": "What type of ..."}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "Peel"}]}]}

With `build_dataset.py --target product` the question is another one, and the answer is the product as JSON.

`datasets` loads these files. Trainers need the forms of `export_dataset.py`: TRL trains on these files without an error
and without any image. The product id and the image id are part of the file name (`<slug>_<product-id>_<n>.jpg`), so an
element needs no further keys. A hint (see `skincare.dataset.hints`) is a second line of the question's text.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from skincare import image_names
from skincare.errors import MissingInputError, StageError
from skincare.files import write_json
from skincare.labels import Labels, labels_of
from skincare.paths import Layout
from skincare.product.schema import canonical_product
from skincare.prompts import PRODUCT_QUESTION, Target, hint_kind, hint_of, labels_for, target_of, with_hint
from skincare.tables import natural_key

_REMEDY: Final = "Make it with `python src/build_dataset.py`."


@dataclass(frozen=True)
class Example:
    """An image (its path below the root), its category, and the question about it with its hint.

    product: the structured answer as JSON; empty where the answer is the category.
    """

    image: str
    category: str
    image_id: str
    product_id: str
    question: str
    hint: str = ""
    product: str = ""

    @property
    def answer(self) -> str:
        """Return the target text of the model."""
        return self.product or self.category


def example(image: str, category: str, labels: Labels, hint: str = "", product: str = "") -> Example:
    """Return the example of an image's path below the root; `product` with the labels of that target.

    Raises ValueError for an invalid path, category, hint or product.
    """
    product_id, image_id = image_names.parse_path(image)
    labels.check(category)
    hint_kind(hint)
    if (target_of(labels) == "product") != bool(product):
        raise ValueError(f"the question {labels.question!r} and the answer {(product or category)[:200]!r} do not fit")
    if product and canonical_product(product).category != category:
        raise ValueError(f"the product {product[:200]!r} is not of the category {category!r}")
    return Example(image, category, image_id, product_id, labels.question, hint, product)


def target_of_examples(examples: Iterable[Example]) -> Target:
    """Return the target of a dataset; StageError if it mixes structured answers with categories."""
    targets: set[Target] = {"product" if one.product else "category" for one in examples}
    if len(targets) > 1:
        raise StageError(f"The dataset mixes categories and structured answers\n{_REMEDY}")
    return targets.pop() if targets else "category"


def write_dataset(layout: Layout, split: str, examples: Iterable[Example]) -> None:
    """Replace the dataset file of a split, sorted by image id."""
    ordered = sorted(examples, key=lambda one: natural_key(one.image_id))
    write_json(layout.dataset(split), [to_element(one) for one in ordered])


def read_dataset(layout: Layout, split: str) -> list[Example]:
    """Return the examples of a split in file order.

    Raises MissingInputError when the file is absent, StageError when it is empty, malformed, or of other labels or
    another question than the root's.
    """
    path = layout.dataset(split)
    if not path.is_file():
        raise MissingInputError(f"{split} dataset", path, _REMEDY)
    try:
        elements = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{path}: not valid JSON ({error})\n{_REMEDY}") from error
    if not isinstance(elements, list) or not elements:
        raise StageError(f"{path}: not a list of examples\n{_REMEDY}")
    labels = labels_for(_target(elements[0]), labels_of(layout))
    return [_from_element(element, f"{path}, element {n}", labels) for n, element in enumerate(elements, start=1)]


def to_element(one: Example) -> dict[str, Any]:
    """Return an example as an element of a dataset file."""
    return {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": one.image},
                    {"type": "text", "text": with_hint(one.question, one.hint)},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": one.answer}]},
        ]
    }


def _target(element: Any) -> Target:
    """Return the target that the question of an element names; `category` for a malformed one."""
    try:
        question = str(element["messages"][0]["content"][1]["text"])
    except (KeyError, IndexError, TypeError):
        return "category"
    return "product" if question.partition("\n")[0] == PRODUCT_QUESTION else "category"


def _from_element(element: Any, where: str, labels: Labels) -> Example:
    try:
        user, assistant = element["messages"]
        image, question = user["content"]
        answer, hint = assistant["content"][0]["text"], hint_of(question["text"], labels)
        if target_of(labels) == "category":
            return example(image["image"], answer, labels, hint)
        return example(image["image"], canonical_product(answer).category or "", labels, hint, answer)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise StageError(f"{where}: not an image with a question and an answer\n{_REMEDY}") from error
    except ValueError as error:
        raise StageError(f"{where}: {error}\n{_REMEDY}") from error
