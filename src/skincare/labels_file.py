"""The checked read of a `labels.toml`: the fields of `skincare.labels.Labels`, or an error with file and line.

The shortest file is `labels = ["Mug", "Kettle"]`. All keys, which docs/labels.md describes:

    domain = "kitchen"
    question = "What is shown in this image?"
    instruction = "... {labels}."
    nameless = ["kettle corn"]
    phrase_table = "phrases.csv"

    [parents]
    "Drinks" = ["Mug", "Kettle"]

    [[labels]]
    name = "Mug"
    aliases = ["cup"]                # in English, or by language: {en = ["cup"], de = ["Becher"]}
    n_unnamed = 0                    # the reader's prior count
    is_dominant = false              # decides compounds wherever it stands ("mug kettle")
"""

import csv
import json
import logging
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from skincare.errors import StageError

logger = logging.getLogger(__name__)

# The column of a table or matrix for predictions that are no label. It is never a label itself.
UNKNOWN: Final = "Unknown"
ENGLISH: Final = "en"
QUESTION: Final = "What is shown in this image?"
INSTRUCTION: Final = (
    "You name what is shown in an image. Answer with exactly one of these labels and nothing else: {labels}."
)
# All names stand in the prompt of every image: beyond this many the prompt is longer than an image.
MANY_LABELS: Final = 200
MAX_NAME_LENGTH: Final = 80
STRENGTHS: Final = (0, 1, 2, 3)
SURE: Final = 3  # the strength of a phrase that names a label by itself

_KEYS: Final = ("domain", "question", "instruction", "nameless", "phrase_table", "parents", "labels")
_LABEL_KEYS: Final = ("name", "aliases", "n_unnamed", "is_dominant")
_COLUMNS: Final = ["label", "language", "strength", "phrases"]
# They separate names in prompts and tables, or begin a token of a chat template.
_SEPARATORS: Final = frozenset(',;|<>{}"\\\n')


class Alias(NamedTuple):
    """A phrase that stands for a label in an answer."""

    phrase: str
    label: str
    language: str


class PackPhrase(NamedTuple):
    """Phrases on a pack, separated by `|`; see `skincare.text_reading.phrases`. An empty label: they name nothing."""

    label: str
    language: str
    strength: int
    phrases: str


def read(path: Path) -> dict[str, Any]:
    """Return the fields of `Labels`; raises StageError that names the line of the first mistake."""
    return _Reader(path).fields()


class _Reader:
    """One file, its text for the lines of messages, and its values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8-sig")
            self.value = tomllib.loads(self.text)
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise StageError(f"{path}: cannot be read ({error})") from error
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"line (\d+)", str(error))
            line = found[1] if found else str(self.text.count("\n") + 1)
            raise StageError(f"{path}, line {line}: no valid TOML ({error})") from error

    def fields(self) -> dict[str, Any]:
        """Return the fields of `Labels`, each checked."""
        self._check_keys(self.value, _KEYS, 1)
        entries = self._entries()
        names = self._names(entries)
        aliases = [alias for entry, line in entries for alias in self._aliases(entry, line)]
        nameless = self._texts(self.value.get("nameless", []), "nameless", self._line("nameless", is_key=True))
        self._check_words(entries, aliases, nameless)
        if len(names) > MANY_LABELS:
            logger.warning(
                "%s: %d labels; all of them stand in the prompt of every image, more than %d are slow and hard to tell "
                "apart for a small model", self.path, len(names), MANY_LABELS,
            )  # fmt: skip
        return {
            "names": tuple(names),
            "families": self._families(names),
            "aliases": tuple(aliases),
            "nameless": nameless,
            "dominant": tuple(entry["name"] for entry, line in entries if self._flag(entry, line)),
            "pack_phrases": self._pack_phrases(names, aliases, nameless),
            "n_unnamed": tuple(self._count(entry, line) for entry, line in entries),
            "domain": self._line_of_text("domain", "") if "domain" in self.value else "",
            "question": self._line_of_text("question", QUESTION),
            "instruction": self._instruction(),
            "source": str(self.path),
        }

    def _entries(self) -> list[tuple[Mapping[str, Any], int]]:
        """Return the entries of `labels`, each with its line."""
        value = self.value.get("labels")
        if not isinstance(value, list) or len(value) < 2:
            self._fail(self._line("labels", is_key=True), "`labels` must hold two labels or more")
        entries: list[tuple[Mapping[str, Any], int]] = []
        line = 1
        for one in value:
            entry = {"name": one} if isinstance(one, str) else one
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                self._fail(line, "a label without a name")
            line = self._line(entry["name"], line, before="" if isinstance(one, str) else r"name\s*=\s*")
            self._check_keys(entry, _LABEL_KEYS, line)
            entries.append((entry, line))
        return entries

    def _names(self, entries: Sequence[tuple[Mapping[str, Any], int]]) -> list[str]:
        known: dict[str, str] = {}
        for entry, line in entries:
            name = entry["name"]
            self._check_text(name, "a label's name", line)
            if len(name) > MAX_NAME_LENGTH or _SEPARATORS & set(name):
                self._fail(line, f"the name {name[:100]!r} is too long, or holds one of {' '.join('<>{},;|')}")
            if fold(name) == fold(UNKNOWN):
                self._fail(line, f"{name!r} is kept for answers that name no label")
            if fold(name) in known:
                self._fail(line, f"the label {name!r} stands twice ({known[fold(name)]!r})")
            known[fold(name)] = name
        return [entry["name"] for entry, _ in entries]

    def _aliases(self, entry: Mapping[str, Any], line: int) -> Iterator[Alias]:
        value = entry.get("aliases", [])
        by_language = value if isinstance(value, dict) else {ENGLISH: value}
        for language, phrases in by_language.items():
            for phrase in self._texts(phrases, f"aliases of {entry['name']!r}", line):
                yield Alias(phrase, entry["name"], language)

    def _check_words(
        self, entries: Sequence[tuple[Mapping[str, Any], int]], aliases: Sequence[Alias], nameless: Sequence[str]
    ) -> None:
        """Stop at a phrase that stands twice, or for two labels, or for a label and for none."""
        line_of = {entry["name"]: line for entry, line in entries}
        owner: dict[str, str | None] = {fold(name): name for name in line_of}
        for phrase, label, _ in aliases:
            first = owner.get(fold(phrase), "")
            line = self._line(phrase, line_of[label])
            if first == label:
                self._fail(line, f"the alias {phrase!r} of {label!r} stands twice, or is its name")
            if first:
                self._fail(line, f"{phrase!r} is an alias of {label!r} and stands for {first!r} too")
            owner[fold(phrase)] = label
        seen: set[str] = set()
        for phrase in nameless:
            line = self._line(phrase, self._line("nameless", is_key=True))
            if fold(phrase) in seen:
                self._fail(line, f"the nameless phrase {phrase!r} stands twice")
            if fold(phrase) in owner:
                self._fail(line, f"the nameless phrase {phrase!r} stands for {owner[fold(phrase)]!r} too")
            seen.add(fold(phrase))

    def _families(self, names: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
        value = self.value.get("parents", {})
        if not value:
            return tuple((name, (name,)) for name in names)
        line = self._line("parents", is_key=True)
        if not isinstance(value, dict):
            self._fail(line, "`parents` must be a table: family = [labels]")
        parent_of: dict[str, str] = {}
        for parent, members in value.items():
            at = self._line(parent, line, is_key=True)
            self._check_text(parent, "a family's name", at)
            for name in self._texts(members, f"family {parent!r}", at):
                if name not in names:
                    self._fail(at, f"the family {parent!r} holds {name!r}, which is no label")
                if name in parent_of:
                    self._fail(at, f"{name!r} is in two families, {parent_of[name]!r} and {parent!r}")
                parent_of[name] = parent
        missing = [name for name in names if name not in parent_of]
        if missing:
            self._fail(line, f"{missing[0]!r} has no family; list every label under [parents], or leave it out")
        return tuple((parent, tuple(members)) for parent, members in value.items() if members)

    def _pack_phrases(
        self, names: Sequence[str], aliases: Sequence[Alias], nameless: Sequence[str]
    ) -> tuple[PackPhrase, ...]:
        """Return the rows of the phrase table, or the names and aliases where the file names none."""
        if "phrase_table" not in self.value:
            own = [PackPhrase(name, ENGLISH, SURE, name) for name in names]
            own += [PackPhrase(label, language, SURE, phrase) for phrase, label, language in aliases]
            return (*own, *(PackPhrase("", ENGLISH, 0, phrase) for phrase in nameless))
        line = self._line("phrase_table", is_key=True)
        table = self.value["phrase_table"]
        if not isinstance(table, str) or not (path := self.path.parent / table).is_file():
            self._fail(line, f"no such phrase table: {table!r}")
        try:
            return tuple(read_pack_phrases(path, names))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise StageError(f"{path}: cannot be read ({error})") from error

    def _count(self, entry: Mapping[str, Any], line: int) -> int:
        count = entry.get("n_unnamed", 0)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            self._fail(self._line("n_unnamed", line, is_key=True), f"n_unnamed is {count!r}, no count")
        return count

    def _flag(self, entry: Mapping[str, Any], line: int) -> bool:
        flag = entry.get("is_dominant", False)
        if not isinstance(flag, bool):
            self._fail(self._line("is_dominant", line, is_key=True), f"is_dominant is {flag!r}, not true or false")
        return flag

    def _instruction(self) -> str:
        text = self._line_of_text("instruction", INSTRUCTION)
        if text.count("{labels}") != 1:
            self._fail(self._line("instruction", is_key=True), "the instruction must hold {labels} once")
        return text

    def _line_of_text(self, key: str, otherwise: str) -> str:
        text = self.value.get(key, otherwise)
        line = self._line(key, is_key=True)
        self._check_text(text, f"`{key}`", line)
        if set("<>") & set(text):
            self._fail(line, f"`{key}` holds < or >, which chat templates take for their tokens")
        return str(text)

    def _texts(self, value: Any, what: str, line: int) -> tuple[str, ...]:
        if not isinstance(value, list):
            self._fail(line, f"{what}: no list of texts")
        for text in value:
            self._check_text(text, what, self._line(text, line) if isinstance(text, str) and text else line)
        return tuple(value)

    def _check_text(self, text: Any, what: str, line: int) -> None:
        if not isinstance(text, str) or text != text.strip() or not any(map(str.isalnum, text)):
            self._fail(line, f"{what}: {text!r} is empty, no text, or has blanks around it")
        if not text.isprintable():
            self._fail(line, f"{what}: {text!r} holds line ends or control characters")

    def _check_keys(self, value: Mapping[str, Any], known: Sequence[str], line: int) -> None:
        for key in value:
            if key not in known:
                at = self._line(key, line, is_key=True)
                self._fail(at, f"unknown key {key!r}; there are {', '.join(known)}")

    def _line(self, value: str, start: int = 1, *, is_key: bool = False, before: str = "") -> int:
        """Return the first line from `start` that holds a text in quotes, or a key; `start` where none does."""
        if is_key:
            wanted = re.compile(rf"^[\s\[{{]*[\"']?{re.escape(value)}[\"']?\s*[\].=]")
        else:
            wanted = re.compile(rf"{before}(?:{re.escape(json.dumps(value, ensure_ascii=False))}|'{re.escape(value)}')")
        lines = self.text.splitlines()
        return next((n for n in range(start, len(lines) + 1) if wanted.search(lines[n - 1])), start)

    def _fail(self, line: int, what: str) -> NoReturn:
        raise StageError(f"{self.path}, line {line}: {what}")


def read_pack_phrases(path: Path, names: Sequence[str]) -> Iterator[PackPhrase]:
    """Yield the rows of a phrase table (CSV: label, language, strength, phrases); StageError that names the line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != _COLUMNS:
            raise StageError(f"{path}, line 1: the columns must be {', '.join(_COLUMNS)}")
        for row in reader:
            label, strength = row["label"], row["strength"]
            is_known = strength in map(str, STRENGTHS) and label in ("", *names) and (label == "") == (strength == "0")
            if not is_known or not all(map(str.strip, (row["phrases"] or "").split("|"))):
                raise StageError(
                    f"{path}, line {reader.line_num}: no such label, strength or phrase: {label!r}, {strength!r}"
                )
            yield PackPhrase(label, row["language"], int(strength), row["phrases"])


def fold(text: str) -> str:
    """Return text by which two phrases are compared: no case, no accents, dashes as blanks."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    letters = [" " if unicodedata.category(one) in ("Pd", "Pc") else one for one in plain]
    return " ".join("".join(one for one in letters if unicodedata.category(one) != "Mn").split())
