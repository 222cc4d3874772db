"""Parse a model's free text: the label that it names, or why it names none.

In: the text that a model newly generated (never the prompt) and whether it ended by itself. Out: an `Answer` with the
label, a status that says how it was found, and every label that the text mentions.

    "Serum<|im_end|>"                 -> Serum, exact       ("Serum",)
    "It is a **face wash**."          -> Cleanser, alias    ("Cleanser",)
    "Not a serum, but a mask"         -> Mask, exact        ("Serum", "Mask")
    "A body wash with coconut oil"    -> Body Wash, exact   ("Body Wash", "Oil")
    "Serum or Toner"                  -> None, ambiguous    ("Serum", "Toner")
    "This isn't a mask."              -> None, negated      ("Mask",)
    "Mask, Peel, Oil, Mist, Balm"     -> None, echo         (all five: the prompt's list, not an answer)
    "I'm sorry, I cannot tell."       -> None, refusal      ()
    "Cannot tell, possibly a serum"   -> None, refusal      ("Serum",)
    "A white jar with a gold top"     -> None, offlist      ()
    " \\n"                            -> None, empty        ()
    "Bath" (unfinished)               -> None, truncated    ()

Labels and their phrases come from `skincare.labels`. None is never a label: only "exact" and "alias" carry one. The
time that a text takes grows in proportion to its length. What does not decide is in `skincare.inference.mentions`.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, takewhile
from operator import itemgetter
from typing import Final, Literal, NamedTuple, get_args

from skincare.inference import mentions
from skincare.inference.answer_text import Passage, plain_text
from skincare.inference.mentions import Mention
from skincare.labels import ENGLISH, Labels

Status = Literal["exact", "alias", "ambiguous", "negated", "echo", "refusal", "offlist", "empty", "truncated"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

# Raise it with every change of the rules: scores of different versions are not comparable. Phrases count by the
# digest of the labels.
PARSER_VERSION: Final = 4

_ECHO_COUNT: Final = 5  # so many different labels are a copy of the prompt's list
_SHORTEST_STUMP: Final = 3  # letters; "a" or "to" at the end of an unfinished answer say nothing about what follows
_SURE: Final = 3  # the strength of a phrase of a pack that names a label by itself
_CYRILLIC: Final = re.compile("[\u0400-\u04ff]")
_WORD_START: Final = re.compile(r"(?<![a-z0-9])[a-z]")
_REFUSAL: Final = re.compile(
    r"(?<![a-z])(?:i (?:cannot|can't|can not|could not|couldn't|am sorry|do not know|don't know)|i'm sorry|sorry"
    r"|unable to|not able to|cannot (?:determine|identify|tell|see)|can't (?:determine|identify|tell|see))(?![a-z])"
)
# With a hedged guess these are a refusal too: "It is hard to say, maybe a mask".
_DOUBT: Final = re.compile(
    _REFUSAL.pattern + r"|(?<![a-z])(?:(?:not|isn't|n't be) (?:sure|certain|clear|possible)|unclear|unsure|uncertain"
    r"|(?:hard|difficult|impossible) to (?:say|tell|determine|identify|know)"
    r"|cannot be (?:sure|certain|determined|identified))(?![a-z])"
)


@dataclass(frozen=True)
class Answer:
    """A parsed text: `category` only with status exact or alias, `candidates` in order of appearance."""

    category: str | None
    status: Status
    candidates: tuple[str, ...]


class _Phrase(NamedTuple):
    """What a phrase stands for: a label (None: it is consumed and names nothing), whether as its name."""

    label: str | None
    language: str
    is_name: bool


class AnswerParser:
    """Parses answers about one set of labels."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._vocabulary = _vocabulary(labels)
        self._phrase = _pattern(self._vocabulary)
        self._longest_phrase = max(map(len, self._vocabulary))

    def parse(self, text: str, *, is_finished: bool = True) -> Answer:
        """Return the label that newly generated text names; `is_finished` is False when a limit cut it off."""
        passage = Passage.of(text)
        if not any(map(str.isalnum, passage.text)):
            return Answer(None, "empty", ())
        found = self._mentions(passage.text)
        if not found:
            return Answer(None, _status_without_label(passage.text, is_finished), ())
        candidates = mentions.distinct(found)
        deciding = mentions.deciding(found, passage)
        status = _status_of(deciding, found, passage)
        if status not in ("exact", "alias"):
            return Answer(None, status, candidates)
        label = deciding[0].label
        if not is_finished and self._may_become_another(passage, found, label):
            return Answer(None, "truncated", candidates)
        return Answer(label, status, candidates)

    def _mentions(self, plain: str) -> list[Mention]:
        found: list[Mention] = []
        reach = 0  # the end of any phrase, nameless ones too: a negation reaches no further than the next phrase
        for match in self._phrase.finditer(plain):
            spelt = match[match.lastindex or 0]
            phrase = self._vocabulary[spelt]
            if phrase.label is not None:
                mention = Mention(
                    phrase.label, phrase.language, phrase.is_name, *match.span(),
                    is_plural=spelt != match.group(), is_dominant=phrase.label in self.labels.dominant,
                )  # fmt: skip
                last = found[-1] if found else None
                found.append(mention._replace(is_negated=mentions.is_negated(plain, mention, reach, last)))
            reach = match.end()
        return found

    def _may_become_another(self, passage: Passage, found: Sequence[Mention], label: str) -> bool:
        """Return whether unfinished text ends inside a phrase of another label ("Peel" of "peel-off mask")."""
        plain, last = passage.text, found[-1]
        tail_start = max(last.end, len(plain) - self._longest_phrase)
        starts = [last.start, *(match.start() for match in _WORD_START.finditer(plain, tail_start))]
        languages = {ENGLISH, *(one.language for one in found)}
        return any(
            self._begins_another(plain[start:], label, languages) and not _is_aside(passage, found, start)
            for start in starts
            if len(plain) - start >= _SHORTEST_STUMP
        )

    def _begins_another(self, stump: str, label: str, languages: Collection[str]) -> bool:
        return any(
            phrase.label not in (None, label)
            and phrase.language in languages
            and spelt != stump
            and spelt.startswith(stump)
            for spelt, phrase in self._vocabulary.items()
        )


@lru_cache(maxsize=8)
def parser_of(labels: Labels) -> AnswerParser:
    """Return the parser of a set of labels."""
    return AnswerParser(labels)


def _status_without_label(plain: str, is_finished: bool) -> Status:
    if not is_finished:
        return "truncated"
    return "refusal" if _REFUSAL.search(plain) else "offlist"


def _status_of(deciding: Sequence[Mention], found: Sequence[Mention], passage: Passage) -> Status:
    """Return the status of a text with mentions; an item of a list counts for an echo also where it is explained."""
    if not deciding:
        return "negated"
    items = [one for one in found if not one.is_negated and mentions.starts_sentence(passage, one.start)]
    if len(mentions.distinct([*deciding, *items])) >= _ECHO_COUNT:
        return "echo"
    if len(mentions.distinct(deciding)) > 1:
        return "ambiguous"
    if _DOUBT.search(passage.text) and all(mentions.is_hedged(passage, one) for one in deciding):
        return "refusal"
    return "exact" if any(one.is_name for one in deciding) else "alias"


def _is_aside(passage: Passage, found: Sequence[Mention], start: int) -> bool:
    """Return whether a label that begins at `start` and continues to the end of the text cannot decide."""
    before = [one for one in found if one.start < start and not one.is_negated]
    if not before:
        return False
    if mentions.is_described(passage, start, len(passage.text), before[-1].end):
        return True
    firm = mentions.firm_sentence(before, passage)
    is_later = firm is not None and passage.sentence_of(start) > firm
    return is_later and not mentions.asserts(passage, start, len(passage.text))


def _vocabulary(labels: Labels) -> dict[str, _Phrase]:
    """Return plain phrase -> what it stands for; names win over aliases, those over phrases of packs.

    Packs' phrases count in other languages than English, where they name a label by themselves: an English answer is
    a sentence, in which "milky lotion" may describe anything.
    """
    packs = [one for one in labels.pack_phrases if one.language != ENGLISH and one.strength in (0, _SURE)]
    found = [
        (spelt, _Phrase(one.label or None, one.language, is_name=False))
        for one in packs
        for spelt in one.phrases.split("|")
        if not set("*#") & set(spelt)
    ]
    found += [(spelt, _Phrase(None, ENGLISH, is_name=False)) for spelt in labels.nameless]
    found += [(one.phrase, _Phrase(one.label, one.language, is_name=False)) for one in labels.aliases]
    found += [(name, _Phrase(name, ENGLISH, is_name=True)) for name in labels.names]
    plain = {plain_text(spelt): phrase for spelt, phrase in found}
    return {spelt: phrase for spelt, phrase in plain.items() if spelt}


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of the longest phrase at a place, in the singular or plural.

    Boundaries are letters of the phrase's own script, and none in scripts without spaces: a name inside Chinese text is
    found too, one inside another Russian word is not.
    """
    by_script: dict[str, list[str]] = {"": []}
    for phrase in sorted(phrases):
        by_script.setdefault("cyrillic" if _CYRILLIC.search(phrase) else "", []).append(phrase)
    patterns = [rf"(?<![a-z0-9])({_alternatives(by_script[''])})(?:e?s)?(?![a-z0-9])"]
    if "cyrillic" in by_script:
        patterns.append(rf"(?<!{_CYRILLIC.pattern})({_alternatives(by_script['cyrillic'])})(?!{_CYRILLIC.pattern})")
    return re.compile("|".join(patterns))


def _alternatives(phrases: Sequence[str]) -> str:
    """Return a pattern of sorted phrases, the longest first, that shares their beginnings: thousands cost little."""
    # Sorted: what the first and the last one share, all share.
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(phrases[0], phrases[-1], strict=False))
    prefix = "".join(letter for letter, _ in shared)
    rests = [phrase[len(prefix) :] for phrase in phrases]
    parts = [_alternatives(list(group)) for _, group in groupby(filter(None, rests), key=itemgetter(0))]
    if not parts:
        return re.escape(prefix)
    return f"{re.escape(prefix)}(?:{'|'.join(parts)}){'' if all(rests) else '?'}"
