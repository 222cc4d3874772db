"""Predictions, one per image, and the JSON-lines files that store them."""

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from skincare.errors import MissingInputError, StageError
from skincare.files import write_text
from skincare.inference import field_confidence
from skincare.inference.answer_parser import PARSER_VERSION
from skincare.inference.structured_answers import parse_answer
from skincare.labels import Labels
from skincare.prompts import Target
from skincare.tables import natural_key

_REMEDY: Final = "Make it with `python src/zero_shot.py`."


@dataclass(frozen=True)
class Prediction:
    """One prediction, with its raw text, so that it can be parsed again."""

    image_id: str
    product_id: str
    file: str
    split: str
    truth: str
    # See skincare.inference.decoders.
    decoder: str
    text: str
    n_new_tokens: int
    # Whether the model generated the end token, or the limit cut the text off.
    is_finished: bool
    # The result of skincare.inference.answer_parser; None is no category.
    category: str | None
    status: str
    candidates: tuple[str, ...]
    # Of the labels, in their order, where the decoder gives them.
    log_probabilities: tuple[float, ...]
    # The image's share of its batch's time; the only field that differs between runs.
    latency_s: float
    # Version of the parser that category, status and candidates come from.
    parser_version: int = 0
    # Of the image's bytes.
    image_sha256: str = ""
    # Key of the prediction cache; empty for models in training.
    cache_key: str = ""
    # Hint after the question, see skincare.dataset.hints.
    hint: str = ""
    # "product": the text is a structured answer, and the category is the one in it.
    target: Target = "category"
    # Of a structured answer: field -> mean log-probability of the tokens of its value.
    field_log_probabilities: Mapping[str, float] = field(default_factory=dict)


def parsed(prediction: Prediction, labels: Labels) -> Prediction:
    """Return a prediction with the current parser's label of its text."""
    answer = parse_answer(prediction.text, labels, prediction.target, is_finished=prediction.is_finished)
    return replace(
        prediction, category=answer.category, status=answer.status, candidates=answer.candidates,
        parser_version=PARSER_VERSION,
    )  # fmt: skip


_HINTS: Final = get_type_hints(Prediction)


def write_jsonl(path: Path, predictions: Iterable[Prediction]) -> None:
    """Replace `path` by one JSON object a line, sorted by image id."""
    ordered = sorted(predictions, key=lambda one: natural_key(one.image_id))
    write_text(path, "".join(f"{json.dumps(_to_json(one), ensure_ascii=False)}\n" for one in ordered))


def read_jsonl(path: Path, labels: Labels) -> list[Prediction]:
    """Return the predictions of a file in its order.

    Raises MissingInputError if it is absent, StageError naming a malformed line.
    """
    if not path.is_file():
        raise MissingInputError("predictions", path, _REMEDY)
    found = []
    # Not splitlines: a model's text may hold characters that Python, but not JSON, treats as line ends.
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line:
            try:
                found.append(_from_json(json.loads(line), labels))
            except (ValueError, RecursionError) as error:
                raise StageError(f"{path}, line {number}: {error}\n{_REMEDY}") from error
    return found


def _to_json(one: Prediction) -> dict[str, Any]:
    """Return the object that is written; without an empty hint and, for a category, the structured answer's fields."""
    values = asdict(one)
    omitted = {"hint"} if not one.hint else set()
    if one.target == "category":
        omitted |= {"target", "field_log_probabilities"}
    return {name: value for name, value in values.items() if name not in omitted}


def _from_json(value: Any, labels: Labels) -> Prediction:
    names = [one.name for one in fields(Prediction)]
    needed = [one.name for one in fields(Prediction) if one.default is MISSING and one.default_factory is MISSING]
    if not isinstance(value, dict) or not set(needed) <= set(value) <= set(names):
        raise ValueError(f"not an object with the keys {', '.join(names)}")
    for name in ("candidates", "log_probabilities"):
        if isinstance(value[name], list):
            value[name] = tuple(value[name])
    field_confidence.checked(value.get("field_log_probabilities", {}))
    for name in value:
        if not _fits(value[name], _HINTS[name]):
            raise ValueError(f"{name} is {value[name]!r}")
    for name in {value["truth"], value["category"]} - {None}:
        labels.check(name)
    return Prediction(**value)


def _fits(value: Any, hint: Any) -> bool:
    if hint is Target:
        return value in get_args(Target)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    return isinstance(value, hint if isinstance(hint, type | types.UnionType) else object)
