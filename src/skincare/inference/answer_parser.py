"""What a model's free text says: one of the 14 categories, or why it says none.

In goes the text a model has newly generated (never the prompt) and whether it ended by itself; out comes an
`Answer` with the category, a status that says how it was found, and every category named on the way.

    "Serum<|im_end|>"             -> Serum, exact       ("Serum",)
    "It is a **face wash**."      -> Cleanser, alias    ("Cleanser",)
    "Not a serum, but a mask"     -> Mask, exact        ("Serum", "Mask")
    "Serum or Toner"              -> None, ambiguous    ("Serum", "Toner")
    "This isn't a mask."          -> None, negated      ("Mask",)
    "Mask, Peel, Oil, Mist, Balm" -> None, echo         (all five: the prompt's list, not an answer)
    "I'm sorry, I cannot tell."   -> None, refusal      ()
    "A white jar with a gold top" -> None, offlist      ()
    " \\n"                        -> None, empty        ()
    "Bath" (unfinished)           -> None, truncated    ()

None is never a category: only "exact" and "alias" carry one. All functions are pure, and the time they take
grows in proportion to the text.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args

from skincare.categories import CATEGORIES

Status = Literal["exact", "alias", "ambiguous", "negated", "echo", "refusal", "offlist", "empty", "truncated"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

# Raise it with every change of the phrases or the rules: scores made with different versions must not be compared.
ALIASES_VERSION: Final = 3

# What is what was counted in the catalogue, see docs/labels.md.
# Phrases with the last word in the singular, in British spelling (see _SPELLINGS); plurals are found by themselves.
# No phrase may consist of two category names ("oil cleanser"): a list with one name a line reads the same.
_PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "Moisturiser": (
        *("moisturizer", "moisturising cream", "moisturising lotion", "moisturising gel", "moisturising milk"),
        *("moisturising fluid", "moisturising emulsion", "day cream", "night cream", "face cream", "facial cream"),
        *("hydrating cream", "hydrating lotion", "face lotion", "facial lotion", "gel cream", "hand cream"),
        *("body cream", "body lotion", "body butter", "body milk", "foot cream", "day lotion", "night lotion"),
    ),
    "Exfoliator": (
        *("exfoliant", "exfoliating scrub", "exfoliating gel", "exfoliating pad", "exfoliating powder"),
        *("exfoliating polish", "scrub", "face scrub", "facial scrub", "body scrub", "body polish", "face polish"),
    ),
    "Bath Salts": ("bathsalts", "bath salt", "epsom salt", "salt soak", "bath crystal"),
    "Body Wash": (
        *("bodywash", "shower gel", "shower cream", "shower wash", "shower foam", "shower milk", "body cleanser"),
        *("body shampoo", "body soap", "shower oil", "bath gel", "hand wash", "handwash", "hand soap", "hand cleanser"),
    ),
    "Eye Care": (
        *("eyecare", "eye cream", "eye serum", "eye gel", "eye balm", "eye treatment", "eye lotion", "eye fluid"),
        *("eye contour", "eye contour cream", "eye contour serum", "eye contour gel", "eye contour balm"),
        *(
            "eye makeup remover",
            "eye area serum",
            "eye area balm",
            "eye moisturiser",
            "eye moisturizer",
            "eye concentrate",
        ),
    ),
    "Cleanser": (
        *("exfoliating cleanser", "face wash", "facewash", "facial wash", "facial cleanser", "face cleanser"),
        *("cleansing gel", "cleansing foam", "cleansing milk", "cleansing water", "cleansing lotion"),
        *("cleansing cream", "cleansing mousse", "cleansing bar", "cleansing wipe", "cleansing pad"),
        *("micellar", "micellar water", "makeup remover", "facial soap", "foaming wash"),
    ),
    "Bath Oil": ("bathoil", "bath and shower oil", "bath and body oil", "bath soak", "oil for the bath"),
    "Serum": ("face serum", "facial serum"),
    "Toner": ("tonic", "face tonic", "facial tonic", "facial toner", "toning lotion", "toning water", "toning pad"),
    "Mist": ("spray", "face mist", "facial mist", "body mist", "setting mist", "setting spray", "facial spray"),
    "Balm": ("cleansing balm", "lip balm"),
    "Mask": (
        *("masque", "face mask", "facial mask", "sheet mask", "sleep mask", "sleeping mask", "overnight mask"),
        *("peel off mask", "peeling mask", "eye mask", "eye sheet mask", "under eye mask", "hair mask", "lip mask"),
    ),
    "Peel": ("peeling", "chemical peel", "facial peel", "face peel", "peel pad", "peeling gel", "peeling pad"),
    "Oil": ("cleansing oil", "body oil", "face oil", "facial oil", "dry oil", "beauty oil"),
}

# These hold a category name but speak of ingredients, packaging or effects, so they are consumed and name nothing.
_NAMELESS: Final[tuple[str, ...]] = (
    *("essential oil", "mineral oil", "natural oil", "excess oil", "oil control", "oil production"),
    *("oil absorbing", "oil based", "peels off", "peels away", "spray bottle", "spray cap", "spray nozzle"),
    *("spray pump", "spray top"),
)

# Phrase (lower case) -> the category it names; None for a phrase that is consumed and names nothing.
ALIASES: Final[dict[str, str | None]] = {
    **{phrase: category for category, phrases in _PHRASES.items() for phrase in phrases},
    **dict.fromkeys(_NAMELESS),
}

_ECHO_COUNT: Final = 5  # so many different names are a copy of the prompt's list
_SHORTEST_STUMP: Final = 3  # letters; "a" or "to" at the end of an unfinished answer say nothing about what follows
_NEGATION_WINDOW: Final = 60  # characters before a name; the bound keeps hostile text linear

_NAMES: Final[dict[str, str]] = {name.lower(): name for name in CATEGORIES}
_VOCABULARY: Final[dict[str, str | None]] = {**ALIASES, **_NAMES}
_LONGEST_PHRASE: Final = max(map(len, _VOCABULARY))


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the longest phrase at a place, in the singular or plural."""
    # Boundaries are Latin letters and digits only, so that a name written inside Chinese text is found too.
    longest_first = sorted(phrases, key=len, reverse=True)
    return re.compile(r"(?<![a-z0-9])(" + "|".join(map(re.escape, longest_first)) + r")(?:e?s)?(?![a-z0-9])")


_PHRASE: Final = _pattern(_VOCABULARY)
_WORD_START: Final = re.compile(r"(?<![a-z0-9])[a-z]")
_END_TOKEN: Final = re.compile(r"<\|[a-z_]{1,30}\|>|</?s>|<eos>|<(?:start|end)_of_turn>", re.IGNORECASE)
_SPELLINGS: Final = {"creme": "cream", "moisturizing": "moisturising", "make up remover": "makeup remover"}
_SPELLING: Final = re.compile(r"(?<![a-z0-9])(?:" + "|".join(_SPELLINGS) + r")(?![a-z0-9])")

_NEGATION_BEFORE: Final = re.compile(
    r"(?:n't|(?<![a-z0-9])(?:not|isnt|cannot|never|no|non|neither|nor|without|free (?:of|from)|instead of"
    r"|rather than|other than|anything but|hardly|excluding))"
    r"(?::? (?:be|look|appear|seem|belong|fall|contain|include|like|to|in|into|under|of|as|category|called|considered"
    r"|(?:class|ident)ified|categori[sz]ed|described|labell?ed|type|kind|sort|product|skincare"
    r"|really|actually|exactly|quite|truly|necessarily|specifically|strictly|added|any|a|an|a\(n\)|the"
    r"|call(?: it| this)|(?:think|believe|say)(?: that)?(?: this| it)? is)){0,8}"
    # After an article come adjectives of any kind: "not a typical hydrating serum".
    r"(?: (?:a|an|a\(n\)|the|any)(?: (?!but |is |it |of )[a-z0-9]+){1,2})?"
    r":? [\"'(\[]{0,2}$"
)
# "oil free" denies the oil, "an oil free of parabens" does not.
_NEGATION_AFTER: Final = re.compile(r" free(?![a-z0-9])(?! (?:of|from) )")
# "not a serum or a mask" denies both.
_NEGATION_CARRIED: Final = re.compile(r",? (?:or|nor) (?:(?:a|an|the|any) )?")
_REFUSAL: Final = re.compile(
    r"(?<![a-z])(?:i (?:cannot|can't|can not|could not|couldn't|am sorry|do not know|don't know)|i'm sorry|sorry"
    r"|unable to|not able to|cannot (?:determine|identify|tell|see)|can't (?:determine|identify|tell|see))(?![a-z])"
)


@dataclass(frozen=True)
class Answer:
    """What a text says: `category` only with status exact or alias, `candidates` in order of appearance."""

    category: str | None
    status: Status
    candidates: tuple[str, ...]


class _Mention(NamedTuple):
    """One place where a text names a category, whether by its own name, and whether to deny it."""

    category: str
    is_name: bool
    is_negated: bool
    start: int
    end: int


def parse(text: str, *, is_finished: bool = True) -> Answer:
    """Return the category that newly generated text names; `is_finished` is False when it was cut off by a limit."""
    plain = _normalise(text)
    if not any(map(str.isalnum, plain)):
        return Answer(None, "empty", ())
    mentions = _find_mentions(plain)
    if not mentions:
        return Answer(None, _status_without_category(plain, is_finished), ())
    candidates = _distinct(mentions)
    affirmed = [mention for mention in mentions if not mention.is_negated]
    status = _status_of(affirmed)
    if status not in ("exact", "alias"):
        return Answer(None, status, candidates)
    category = affirmed[0].category
    if not is_finished and _may_become_another(plain, mentions[-1], category):
        return Answer(None, "truncated", candidates)
    return Answer(category, status, candidates)


def _status_without_category(plain: str, is_finished: bool) -> Status:
    if not is_finished:
        return "truncated"
    return "refusal" if _REFUSAL.search(plain) else "offlist"


def _status_of(affirmed: Sequence[_Mention]) -> Status:
    count = len(_distinct(affirmed))
    if count == 0:
        return "negated"
    if count >= _ECHO_COUNT:
        return "echo"
    if count > 1:
        return "ambiguous"
    return "exact" if any(mention.is_name for mention in affirmed) else "alias"


def _distinct(mentions: Sequence[_Mention]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(mention.category for mention in mentions))


def _normalise(text: str) -> str:
    """Return lower-case text without accents, end tokens, markdown marks and line breaks, one space between words."""
    folded = "".join(map(_fold, _END_TOKEN.sub(" ", text)))
    spaced = " ".join(folded.split())
    return _SPELLING.sub(lambda match: _SPELLINGS[match.group()], spaced)


@lru_cache(maxsize=4096)
def _fold(character: str) -> str:
    # Character by character: sorting a long run of accents, as a whole text would need, takes quadratic time.
    return "".join(map(_replace, unicodedata.normalize("NFKD", character).casefold()))


def _replace(character: str) -> str:
    if character in "‘’ʼ´":
        return "'"
    if character in "“”„":
        return '"'
    if character == "&":
        return " and "
    kind = unicodedata.category(character)
    if kind in ("Mn", "Cf"):
        return ""  # accents, soft hyphens and zero-width marks stand inside words
    # Dashes, underscores, breaks and markdown marks may stand between the words of one phrase ("**Bath**-Salts").
    if kind in ("Pd", "Pc", "Zs", "Zl", "Zp", "Cc") or character in "*`~#\\":
        return " "
    return character


def _find_mentions(plain: str) -> list[_Mention]:
    mentions: list[_Mention] = []
    previous_end = 0  # of any phrase, nameless ones too: a negation reaches no further than the next phrase
    for match in _PHRASE.finditer(plain):
        phrase = match.group(1)
        category = _VOCABULARY[phrase]
        if category is not None:
            last = mentions[-1] if mentions else None
            is_negated = _is_negated(plain, match, previous_end) or _is_carried(plain, match, last)
            mentions.append(_Mention(category, phrase in _NAMES, is_negated, match.start(), match.end()))
        previous_end = match.end()
    return mentions


def _is_negated(plain: str, match: re.Match[str], previous_end: int) -> bool:
    window_start = max(previous_end, match.start() - _NEGATION_WINDOW)
    before = _NEGATION_BEFORE.search(plain, window_start, match.start())
    return bool(before or _NEGATION_AFTER.match(plain, match.end()))


def _is_carried(plain: str, match: re.Match[str], last: _Mention | None) -> bool:
    if last is None or not last.is_negated:
        return False
    return _NEGATION_CARRIED.fullmatch(plain, last.end, match.start()) is not None


def _may_become_another(plain: str, last: _Mention, category: str) -> bool:
    """Tell whether unfinished text ends inside a phrase of another category ("Peel" of "peel-off mask")."""
    tail_start = max(last.end, len(plain) - _LONGEST_PHRASE)
    starts = [last.start, *(match.start() for match in _WORD_START.finditer(plain, tail_start))]
    stumps = [plain[start:] for start in starts if len(plain) - start >= _SHORTEST_STUMP]
    return any(
        other not in (None, category) and phrase != stump and phrase.startswith(stump)
        for stump in stumps
        for phrase, other in _VOCABULARY.items()
    )
