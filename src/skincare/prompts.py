"""What the model is asked, in one place: change the question or the instruction here and nowhere else.

A dataset may add a hint: one line after the question, which says where it is from. It stands after the image, so that
the text before the image is the same for all examples.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from skincare.categories import CATEGORIES

QUESTION: Final = "What type of skincare product is shown in this image?"

HintKind = Literal["none", "text", "metadata"]
# How a hint begins. Source of the first: LLaVA-1.5's training data for TextVQA.
HINT_LABELS: Final[dict[HintKind, str]] = {"text": "Reference OCR token: ", "metadata": "Product metadata: "}


def system_prompt(names: Sequence[str] = CATEGORIES) -> str:
    """Return the instruction, which lists the categories in the order of `names`."""
    return (
        "You name the type of the skincare product in an image. Answer with exactly one of these categories and "
        f"nothing else: {', '.join(names)}."
    )


SYSTEM_PROMPT: Final = system_prompt()


def question(hint: str = "") -> str:
    """Return the question with a hint in a line of its own, where there is one."""
    return f"{QUESTION}\n{hint}" if hint else QUESTION


def hint_of(text: str) -> str:
    """Return the hint in a text of `question`; ValueError for a text that it would not give."""
    asked, _, hint = text.partition("\n")
    if asked != QUESTION or text != question(hint):
        raise ValueError(f"it asks {text[:200]!r}, src/skincare/prompts.py asks {QUESTION!r}")
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


def chat_template(instruction: str = SYSTEM_PROMPT) -> str:
    """Return the template with the instruction that a dialogue gets which begins without one."""
    text = CHAT_TEMPLATE_FILE.read_text(encoding="utf-8")
    assert text.count(_TEMPLATE_INSTRUCTION) == 1
    # A JSON string is a string of Jinja's too: both know these escapes.
    return text.replace(_TEMPLATE_INSTRUCTION, json.dumps(instruction, ensure_ascii=False))


def user_messages(image: Any = None, names: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
    """Return the dialogue up to the model's turn: the instruction, then an image with the question."""
    return [
        {"role": "system", "content": [{"type": "text", "text": system_prompt(names)}]},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]},
    ]
