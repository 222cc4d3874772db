"""What the model is asked, in one place: change the question or the instruction here and nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from skincare.categories import CATEGORIES

QUESTION: Final = "What type of skincare product is shown in this image?"


def system_prompt(names: Sequence[str] = CATEGORIES) -> str:
    """Return the instruction, which lists the categories in the order of `names`."""
    return (
        "You name the type of the skincare product in an image. Answer with exactly one of these categories and "
        f"nothing else: {', '.join(names)}."
    )


SYSTEM_PROMPT: Final = system_prompt()

# Qwen2-VL-Instruct's template, reduced to what a classification dialogue holds. The base model ships one that drops
# the picture without a word, so this one is set on every processor and saved with every fine-tuned model.
CHAT_TEMPLATE_FILE: Final = Path(__file__).with_name("chat_template.jinja")


def user_messages(image: Any = None, names: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
    """Return the dialogue up to the model's turn: the instruction, then a picture with the question."""
    return [
        {"role": "system", "content": [{"type": "text", "text": system_prompt(names)}]},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]},
    ]
