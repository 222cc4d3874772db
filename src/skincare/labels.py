"""The labels that a model chooses from, with the words for them: one object, read from one file.

`labels.toml` in the root folder, or the file of `--labels`, decides; without one it is the file that is shipped next
to this module, the 14 skincare categories. A trained model carries a copy in its folder (`labels.json`), and
predictions with it use that copy.

    labels = labels_of(layout)          # at the border of a stage; everything below gets `labels` as an argument
    labels.names                        # ("Moisturiser", ..., "Oil"): their order is that of every table
    labels.digest                       # part of every cache key and manifest
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

from skincare import labels_file
from skincare.errors import MissingInputError, StageError
from skincare.files import write_json
from skincare.labels_file import ENGLISH, UNKNOWN, Alias, PackPhrase
from skincare.paths import Layout

__all__ = [
    "ENGLISH", "HEAD_FIRST", "MODEL_FILE", "SKINCARE_FILE", "UNKNOWN", "Alias", "Labels", "PackPhrase",
    "check_same_labels", "labels_of", "labels_of_model", "read_labels", "skincare_labels",
]  # fmt: skip

# Languages in which the first noun of a compound is its head ("huile de bain"); in the others it is the last.
HEAD_FIRST: Final = frozenset(["fr", "es", "it", "pt", "vi", "pl", "ru", "id"])

SKINCARE_FILE: Final = Path(__file__).with_name("labels.toml")
# The copy in a model's folder.
MODEL_FILE: Final = "labels.json"


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels in their order, and all that depends on them.

    families: family -> labels, each label in exactly one; without families in the file each label is its own.
    aliases, nameless: phrases in an answer that stand for a label, and those that hold a label's name but stand for
    none. dominant: labels that decide a compound of nouns at any position. pack_phrases: what the reader knows.
    n_unnamed: (n_labels,) the reader's prior counts. domain: what the products are, for titles.
    question, instruction: what the model gets; `{labels}` in the instruction is replaced by the names.
    source: the file that they were read from, for messages.
    """

    names: tuple[str, ...]
    families: tuple[tuple[str, tuple[str, ...]], ...]
    aliases: tuple[Alias, ...]
    nameless: tuple[str, ...]
    dominant: tuple[str, ...]
    pack_phrases: tuple[PackPhrase, ...]
    n_unnamed: tuple[int, ...]
    domain: str
    question: str
    instruction: str
    source: str = ""

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        """Compare by content; where it was read from does not matter."""
        return isinstance(other, Labels) and self.digest == other.digest

    def __hash__(self) -> int:
        """Return the hash of the content."""
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the content, in hexadecimal digits."""
        content = {key: value for key, value in asdict(self).items() if key != "source"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def _family_of(self) -> dict[str, str]:
        return {name: family for family, members in self.families for name in members}

    @property
    def has_families(self) -> bool:
        """Return whether some family holds more than one label."""
        return len(self.families) < len(self.names)

    @property
    def product(self) -> str:
        """Return what one product is called in titles: "skincare product", or "product" without a domain."""
        return f"{self.domain} product".strip()

    def index(self, name: str) -> int:
        """Return the place of a label; KeyError for a name that is none."""
        return self._places[name]

    def family_of(self, name: str) -> str:
        """Return the family of a label; KeyError for a name that is none."""
        return self._family_of[name]

    def system_prompt(self, order: Sequence[str] = ()) -> str:
        """Return the instruction, which lists the labels in their order, or in `order`."""
        return self.instruction.replace("{labels}", ", ".join(order or self.names))

    def check(self, name: str) -> None:
        """Raise ValueError for a name that is no label."""
        if name not in self._places:
            raise ValueError(f"{name!r} is none of the labels of {self.source or 'this model'}")

    def write(self, folder: Path) -> None:
        """Write the copy that a model carries."""
        write_json(folder / MODEL_FILE, asdict(self))


def labels_of(layout: Layout) -> Labels:
    """Return the labels of a root folder: of `--labels`, else of its labels.toml, else the skincare categories.

    Raises MissingInputError for a file of `--labels` that is absent, StageError for a file that is not valid.
    """
    path = layout.labels_file
    if path is None:
        return skincare_labels()
    if not path.is_file():
        raise MissingInputError("labels file", path, "Write one as docs/labels.md describes, or leave --labels out.")
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


def skincare_labels() -> Labels:
    """Return the labels that are shipped: the 14 skincare categories."""
    return _read(SKINCARE_FILE, 0, 0)


def labels_of_model(folder: Path, otherwise: Labels) -> Labels:
    """Return the labels that a model was trained with; `otherwise` for a base model, which carries none.

    Raises StageError for a file that is damaged.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        return otherwise
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        found = Labels(
            names=tuple(value["names"]),
            families=tuple((family, tuple(members)) for family, members in value["families"]),
            aliases=tuple(Alias(*one) for one in value["aliases"]),
            nameless=tuple(value["nameless"]),
            dominant=tuple(value["dominant"]),
            pack_phrases=tuple(PackPhrase(*one) for one in value["pack_phrases"]),
            n_unnamed=tuple(value["n_unnamed"]),
            domain=value["domain"],
            question=value["question"],
            instruction=value["instruction"],
            source=str(path),
        )
        _check_fields(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StageError(f"{path}: holds no labels ({error}); export the model again") from error
    return found


def _check_fields(labels: Labels) -> None:
    """Raise ValueError or TypeError for fields that no labels.toml gives; the folder of a model may be anybody's."""
    words = (word for alias in labels.aliases for word in alias)
    texts = (*labels.names, *labels.nameless, *words, labels.domain, labels.question, labels.instruction)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is of another type")
    members = [name for _, family in labels.families for name in family]
    if len(set(labels.names)) < 2 or sorted(members) != sorted(labels.names):
        raise ValueError("the families do not hold each of two labels or more once")
    named = {one.label for one in labels.aliases} | {*labels.dominant} | {one.label for one in labels.pack_phrases}
    if unknown := named - {"", *labels.names}:
        raise ValueError(f"{sorted(unknown)[0]!r} is no label")
    if len(labels.n_unnamed) != len(labels.names) or not all(type(n) is int and n >= 0 for n in labels.n_unnamed):
        raise ValueError("n_unnamed is no list of counts")
    if not all(type(one.strength) is int and isinstance(one.phrases, str) for one in labels.pack_phrases):
        raise ValueError("a phrase of packs is of another type")


def check_same_labels(folder: Path, labels: Labels) -> None:
    """Raise StageError where a model was trained with other labels than those of the data."""
    found = labels_of_model(folder, labels)
    if _seen_by_model(found) == _seen_by_model(labels):
        return
    raise StageError(
        f"{folder} was trained with other labels than {labels.source}: {_difference(found, labels)}\n"
        f"Name the labels of its training with --labels, or train a model with these."
    )


def _seen_by_model(labels: Labels) -> tuple[object, ...]:
    """Return what a model learns with; aliases and families may change after its training."""
    return labels.names, labels.question, labels.instruction


def _difference(found: Labels, expected: Labels) -> str:
    """Return what is different, in one line."""
    if found.names != expected.names:
        return f"{', '.join(found.names[:20])} instead of {', '.join(expected.names[:20])}"
    if found.question != expected.question:
        return f"it got the question {found.question!r}, not {expected.question!r}"
    return f"its instruction is {found.instruction!r}, not {expected.instruction!r}"


def read_labels(path: Path) -> Labels:
    """Return the labels of a labels.toml; raises StageError that names the line of the first mistake."""
    return Labels(**labels_file.read(path))


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int, _size: int) -> Labels:
    return read_labels(path)
