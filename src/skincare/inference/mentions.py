"""Select the mentions of labels that decide a text's answer; pure functions.

A mention does not decide if the text negates it, or if it is part of the description of another one:

    negated           "not a serum", "oil-free"
    an ingredient     "a body wash with coconut oil"
    a use or effect   "to be applied before moisturiser", "removes oil", "it can also be used as a cleanser"
    a modifier        "balm cleanser", "peeling gel exfoliator": the last noun decides; the first one in French,
                      Spanish, Italian ... ("masque gommant")
    an explanation    "This is a serum. Serums are lighter than moisturisers.": after a first sentence that decides
                      without a hedge, further sentences count only if they assert another label

If no other mention remains, ingredients and uses decide ("it is used as a toner").
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from skincare.inference.answer_text import Passage
from skincare.labels import HEAD_FIRST

_WINDOW: Final = 60  # characters before a mention; the bound keeps hostile text linear
_LONGEST_COMPOUND: Final = 3  # nouns; a longer run is a list

_NEGATION_BEFORE: Final = re.compile(
    r"(?:n't|(?<![a-z0-9])(?:not|isnt|cannot|never|no|non|neither|nor|without|free (?:of|from)|instead of"
    r"|rather than|other than|anything but|hardly|excluding|kein(?:e[nmrs]?)?|nicht|ohne|sans|sin|senza|bez|без|не))"
    r"(?::? (?:be|look|appear|seem|belong|fall|contain|include|like|to|in|into|under|of|as|category|called|considered"
    r"|(?:class|ident)ified|categori[sz]ed|described|labell?ed|type|kind|sort|product|skincare"
    r"|really|actually|exactly|quite|truly|necessarily|specifically|strictly|added|any|a|an|a\(n\)|the"
    r"|un|une|uno|una|de|ein|eine[nmrs]?"
    r"|call(?: it| this)|(?:think|believe|say)(?: that)?(?: this| it)? is)){0,8}"
    # Any adjectives after an article: "not a typical hydrating serum".
    r"(?: (?:a|an|a\(n\)|the|any)(?: (?!but |is |it |of )[a-z0-9]+){1,2})?"
    r":? [\"'(\[]{0,2}$"
)
# "pas" alone may be the end of an English name.
_PAS: Final = re.compile(r"(?<![a-z0-9])pas (?:un |une |de |du |d')?$")
# "oil free" negates the oil, "an oil free of parabens" does not.
_NEGATION_AFTER: Final = re.compile(r" free(?![a-z0-9])(?! (?:of|from) )")
# "not a serum or a mask" negates both mentions, as does "not a balm cleanser".
_NEGATION_CARRIED: Final = re.compile(r",? (?:or|nor) (?:(?:a|an|the|any) )?| ")

_DESCRIBED: Final = re.compile(
    r"(?<![a-z0-9])(?:"
    # Ingredients.
    r"with|contain(?:s|ing)?|featur(?:es|ing)|includ(?:es|ing)|rich in|based on"
    r"|(?:made|derived|formulated|extracted|blended|powered) (?:of|from|by)"
    r"|avec|au|aux|con|com|mit|aus|z|ze|met|с"
    # Uses and effects.
    r"|before|after|under|underneath|beneath|over|on top of|prior to|followed by|alongside|your"
    r"|(?:also|double[sd]?|used?|works?|serves?|functions?|acts?|worn|applied|usable|useful|suitable|ideal|great)"
    r"(?: also| well| equally)? as"
    r"|remov(?:es?|ing)|absorb(?:s|ing)?|control(?:s|ling)?|reduc(?:es?|ing)|dissolv(?:es?|ing)|replac(?:es?|ing)"
    r"|(?:turn|transform|melt|change|convert)(?:s|ing)? (?:in)?to|becom(?:es?|ing)"
    # Comparisons.
    r"|than|unlike|(?:similar|compared|comparable|opposed) (?:to|with)|(?:works?|feels?|acts?|smells?) like"
    r")(?: (?!(?:is|are|it|this|that|which|but|so) )[a-z0-9'%]+){0,5} [\"'(\[]{0,2}$"
)
_DESCRIBED_AFTER: Final = re.compile(r" (?:form|format|texture|consistency|base|scent|fragrance|extract)(?![a-z0-9])")
_DESCRIBED_TOO: Final = re.compile(
    r"(?:,| and|, and|,? or| plus)(?: (?!(?:is|are|it|this|that|but) )[a-z0-9'%]+){0,3} "
)
# Between the nouns of a compound: nothing, or words for a texture or an effect; "balm to oil cleanser".
_COMPOUND_GAP: Final = re.compile(
    r" (?:(?:gel|cream|powder|foam|milk|water|lotion|stick|jelly|mousse|liquid|bar|daily|face|facial|body|infused|based"
    r"|hydrating|moisturising|cleansing|exfoliating|foaming|brightening|nourishing|balancing|reducing|controlling"
    r"|absorbing|like|style|type) ){0,2}|(?: to| in) "
)
_HEDGE: Final = re.compile(
    r"(?<![a-z])(?:possibly|maybe|perhaps|potentially|conceivably|might|could|may|guess(?:ing)?)(?![a-z])"
)
_LIST_MARK: Final = re.compile(
    r"(?:(?:option |answer |category )?[0-9a-z]{0,2}[.):]+ |[\"'(\[>|•]+ ?)?(?:(?:an?|the) )?[\"'(\[]{0,2}"
)
_ENDS_PHRASE: Final = re.compile(r"[\"')\]]{0,2}(?:$| ?[.,;:!?/(|])")
# "Toner for the face" is an answer, "Toners for the face are thin" is not.
_GOES_ON: Final = re.compile(r" (?:for|in|by)(?![a-z])")
_ASSERTION: Final = re.compile(
    r"(?:(?<![a-z])(?:it|this|that|product|item|image|answer|category|label|type|one)"
    r"(?: (?:shown|here|in (?:the|this) (?:image|picture|photo)))?"
    r"(?:'s| is| was| are|(?: could| might| may)(?: also)? be| looks?(?: more)? like"
    r"| (?:appears|seems)(?: to be)?| shows)"
    r"|(?<![a-z])(?:or|actually|alternatively|instead|maybe|perhaps|possibly|wait|correction|rather|no)),?:?"
    r"(?: (?!(?:used|applied|meant|designed|intended|made|for|to|by|not|before|after|with|than|lighter|thicker) )"
    r"[a-z]+){0,4}"
    r" [\"'(\[]{0,2}$"
)


class Mention(NamedTuple):
    """A mention of a label in plain text: its language, whether it is the label's name, and whether it is negated.

    is_dominant: it decides a compound of nouns at any position ("eye care serum").
    """

    label: str
    language: str
    is_name: bool
    start: int
    end: int
    is_plural: bool = False
    is_dominant: bool = False
    is_negated: bool = False


def is_negated(plain: str, mention: Mention, previous_end: int, last: Mention | None) -> bool:
    """Return whether a text negates a mention; `previous_end`: the end of the previous phrase, `last`: its mention."""
    window_start = max(previous_end, mention.start - _WINDOW)
    if any(one.search(plain, window_start, mention.start) for one in (_NEGATION_BEFORE, _PAS)):
        return True
    if _NEGATION_AFTER.match(plain, mention.end):
        return True
    is_carried = last is not None and last.is_negated and _NEGATION_CARRIED.fullmatch(plain, last.end, mention.start)
    return bool(is_carried)


def distinct(mentions: Sequence[Mention]) -> tuple[str, ...]:
    """Return the labels of mentions in the order of their first occurrence."""
    return tuple(dict.fromkeys(mention.label for mention in mentions))


def deciding(mentions: Sequence[Mention], passage: Passage) -> list[Mention]:
    """Return the mentions that decide the answer; empty if all are negated."""
    affirmed = [mention for mention in mentions if not mention.is_negated]
    left = _heads(_undescribed(affirmed, passage), passage) or affirmed
    firm = firm_sentence(left, passage)
    if firm is None:
        return left
    return [one for one in left if passage.sentence_of(one.start) <= firm or _asserts_label(passage, one)]


def firm_sentence(left: Sequence[Mention], passage: Passage) -> int | None:
    """Return the number of the first sentence with a mention where it names one label without a hedge, or None."""
    if not left:
        return None
    first = passage.sentence_of(left[0].start)
    own = [mention for mention in left if passage.sentence_of(mention.start) == first]
    return first if len(distinct(own)) == 1 and not any(is_hedged(passage, one) for one in own) else None


def is_hedged(passage: Passage, mention: Mention) -> bool:
    """Return whether the sentence hedges a mention: "possibly a serum", "it might be a serum"."""
    start = max(passage.sentence_start(mention.start), mention.start - _WINDOW)
    return _HEDGE.search(passage.text, start, mention.start) is not None


def starts_sentence(passage: Passage, start: int) -> bool:
    """Return whether a position begins its sentence or line, ignoring a number, a mark or an article."""
    return _LIST_MARK.fullmatch(passage.text, passage.sentence_start(start), start) is not None


def asserts(passage: Passage, start: int, end: int) -> bool:
    """Return whether a sentence after the first states its label as the answer: "Toner.", "Or it could be a toner"."""
    if starts_sentence(passage, start) and _ENDS_PHRASE.match(passage.text, end):
        return True
    window_start = max(passage.sentence_start(start), start - _WINDOW)
    return _ASSERTION.search(passage.text, window_start, start) is not None


def _asserts_label(passage: Passage, one: Mention) -> bool:
    is_fragment = not one.is_plural and starts_sentence(passage, one.start) and _GOES_ON.match(passage.text, one.end)
    return bool(is_fragment) or asserts(passage, one.start, one.end)


def is_described(passage: Passage, start: int, end: int, previous_end: int) -> bool:
    """Return whether a span is an ingredient, a use or an effect; `previous_end`: the end of the previous mention."""
    if _DESCRIBED_AFTER.match(passage.text, end):
        return True
    window_start = max(passage.sentence_start(start), previous_end, start - _WINDOW)
    return _DESCRIBED.search(passage.text, window_start, start) is not None


def _undescribed(affirmed: Sequence[Mention], passage: Passage) -> list[Mention]:
    left = []
    end, was_described = 0, False
    for mention in affirmed:
        is_carried = was_described and _DESCRIBED_TOO.fullmatch(passage.text, end, mention.start)
        was_described = bool(is_carried) or is_described(passage, mention.start, mention.end, end)
        end = mention.end
        if not was_described:
            left.append(mention)
    return left


def _heads(mentions: Sequence[Mention], passage: Passage) -> list[Mention]:
    """Return the mentions without those that modify their neighbour in a compound of nouns."""
    compounds: list[list[Mention]] = []
    for mention in mentions:
        if compounds and _is_compound(compounds[-1][-1], mention, passage):
            compounds[-1].append(mention)
        else:
            compounds.append([mention])
    return [
        one for compound in compounds for one in (compound if len(compound) > _LONGEST_COMPOUND else [_head(compound)])
    ]


def _head(compound: Sequence[Mention]) -> Mention:
    dominant = [mention for mention in compound if mention.is_dominant]
    if dominant:
        return dominant[0]
    is_head_first = any(mention.language in HEAD_FIRST for mention in compound)
    return compound[0] if is_head_first else compound[-1]


def _is_compound(first: Mention, second: Mention, passage: Passage) -> bool:
    if first.is_plural or passage.has_line_break(first.end, second.start):
        return False
    return _COMPOUND_GAP.fullmatch(passage.text, first.end, second.start) is not None
