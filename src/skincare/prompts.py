"""The model's prompt: instruction, question and hint as text and as messages, and the chat template.

Question and instruction are those of the labels (`skincare.labels`); for structured answers they are replaced by those
below. The question of a dataset or a model therefore says what it answers with: `target_of(labels)`. A dataset may add
a hint: one line after the question, which names its source. It stands after the image, so that the text before the
image is the same for all examples.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from skincare.labels import Labels

# What the model answers with: a label, or a product as JSON (`skincare.product.schema`).
Target = Literal["category", "product"]

PRODUCT_QUESTION: Final = "Describe the product in this image as JSON."
PRODUCT_INSTRUCTION: Final = (
    "You describe the product in an image. Answer with one line of JSON and nothing else, with the keys brand, "
    "category, country, details, howToUse, ingredients, manufacturer, name, origin, size and forNightOrMorning; null "
    "where a value is not known. category is exactly one of these labels: {labels}."
)

HintKind = Literal["none", "text", "metadata"]
# How a hint begins. Source of the first: LLaVA-1.5's training data for TextVQA.
HINT_LABELS: Final[dict[HintKind, str]] = {"text": "Reference OCR token: ", "metadata": "Product metadata: "}


def target_of(labels: Labels) -> Target:
    """Return what a model or a dataset with these labels answers with."""
    return "product" if labels.question == PRODUCT_QUESTION else "category"


def labels_for(target: Target, labels: Labels) -> Labels:
    """Return the labels with the question and the instruction of a target; the labels' own for `category`."""
    if target == "category":
        return labels
    return dataclasses.replace(labels, question=PRODUCT_QUESTION, instruction=PRODUCT_INSTRUCTION)


def with_hint(question: str, hint: str = "") -> str:
    """Return a question with a hint in a line of its own, where there is one."""
    return f"{question}\n{hint}" if hint else question


def hint_of(text: str, labels: Labels) -> str:
    """Return the hint in a text of `with_hint`; ValueError for another question than that of the labels."""
    question, _, hint = text.partition("\n")
    if question != labels.question or text != with_hint(question, hint):
        raise ValueError(f"the question is {text[:200]!r}, that of {labels.source} is {labels.question!r}")
    if hint:
        hint_kind(hint)
    return hint


def hint_kind(hint: str) -> HintKind:
    """Return where a hint is from; ValueError for one that does not say, or that could be taken for the template."""
    if not hint:
        return "none"
    if any(character in hint for character in "<>") or not hint.isprintable():
        raise ValueError(f"the hint {hint[:200]!r} holds line ends, control characters or the template's tokens")
    for kind, label in HINT_LABELS.items():
        if hint.startswith(label):
            return kind
    raise ValueError(f"the hint {hint[:200]!r} begins with none of {', '.join(map(repr, HINT_LABELS.values()))}")


# Qwen2-VL-Instruct's template, reduced to what a classification dialogue holds. The base model ships one that drops
# the image without a word, so this one is set on every processor and saved with every fine-tuned model.
CHAT_TEMPLATE_FILE: Final = Path(__file__).with_name("chat_template.jinja")
_TEMPLATE_INSTRUCTION: Final = "'You are a helpful assistant.'"


def chat_template(instruction: str) -> str:
    """Return the template with the instruction that a dialogue gets which begins without one."""
    text = CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
    assert text.count(_TEMPLATE_INSTRUCTION) == 1
    # A JSON string is a string of Jinja's too: both know these escapes.
    return text.replace(_TEMPLATE_INSTRUCTION, json.dumps(instruction, ensure_ascii=False))


def user_messages(labels: Labels, image: Any = None, order: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the dialogue up to the model's turn: the instruction (labels in `order`), an image with the question."""
    return [
        {"role": "system", "content": [{"type": "text", "text": labels.system_prompt(order)}]},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": labels.question}]},
    ]
