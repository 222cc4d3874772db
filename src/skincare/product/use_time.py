"""When a product is to be used, by the words of its name or its directions: text in, morning, night or both out.

    >>> use_time_in_name("Pai Chamomile Calming Day Cream 50ml"), use_time_in_directions("Apply morning and evening.")
    ('morning', 'morning and night')

A sun filter suggests the morning but does not state it, so that SPF alone says nothing.
"""

import re
from typing import Final, Literal

UseTime = Literal["morning", "night", "morning and night"]
USE_TIMES: Final[tuple[UseTime, ...]] = ("morning", "night", "morning and night")

# "Day" names a time of use only before what the product is: "Take The Day Off" and "Daily" do not.
_PRODUCT_WORDS: Final = (
    r"cream|cr[eèé]me|moisturi[sz]er|moisturi[sz]ing|lotion|serum|fluid|emulsion|gel|care|balm|protection|treatment|oil|"
    r"veil|defen[cs]e|essence|milk|mask|mist|wash|cleanser|eye"
)
_BOTH_IN_NAME: Final = re.compile(
    r"\b(?:day\s*(?:&|and|\+|/|to)\s*night|night\s*(?:&|and|\+|/)\s*day|am\s*(?:&|and|\+|/)\s*pm|"
    r"jour\s*(?:&|et|/|\+)\s*nuit|tag\s*(?:&|und|/|\+)\s*nacht|d[ií]a\s*(?:&|y|/|\+)\s*noche|"
    r"giorno\s*(?:&|e|/|\+)\s*notte|dia\s*(?:&|e|/|\+)\s*noite|дневной\s+и\s+ночной|день\s*(?:и|/|-)\s*ночь|"
    r"ng[àa]y\s*(?:&|và|/|\+)\s*đ[êe]m)\b",
    re.IGNORECASE,
)
_MORNING_IN_NAME: Final = re.compile(
    rf"(?<!\b\d )(?<!\b\d-)(?<!all )(?<!every )(?<!each )\b"
    rf"day(?:time)?(?:\s+(?!off\b)\w+)?\s+(?:{_PRODUCT_WORDS})|\bday(?:cream|cr[eè]me|lotion|serum|care)\b|"
    r"\bmorning\b|\b(?:soin|cr[eèé]me|fluide|gel|lait)\s+(?:\w+\s+)?(?:de\s+)?jour\b|"
    r"\b(?:tages(?:pflege|creme|cr[eè]me|fluid|serum)|dag(?:cr[eèé]me|creme|kräm|pleje)|da\s+giorno|(?:crema|viso|siero)\s+giorno)|"
    r"\bcrem[ae]\s+(?:\w+\s+)?de\s+d[ií]a\b|\bna dzie[nń]\b|\bdenní\s+kr[ée]m|\bgündüz\b|\bkrim\s+siang\b|"
    r"\bkem\s+(?:dưỡng\s+)?(?:(?:da|ẩm)\s+)?(?:ban\s+)?ngày\b|\bban\s+ngày\b|\bдневно(?:й|е|го)\b|\bдневная\b|"
    r"日霜|日用|デイ(?:クリーム|ケア)|데이\s?크림|กลางวัน",
    re.IGNORECASE,
)
# Evening primrose and night-blooming flowers are ingredients.
_NIGHT_IN_NAME: Final = re.compile(
    r"\b(?:overnight|evening(?!\s+pr)|"
    r"night(?:time)?(?:cream|creme|crème|care|serum|lotion|mask|repair|gel|balm|oil)?(?![\s-]+(?:bloom|scented|queen))|pm|"
    r"sleep(?:ing)?\s+(?:mask|pack|cream|mist|spray|balm|serum))(?![^\W_])|"
    r"\b(?:nuit|nacht(?:pflege|creme|cr[eè]me|serum|maske|fluid)?|notte|noche|noite|natcreme|nattkräm|gece|na\s+noc|"
    r"noční|éjszakai|ban\s+đêm|kem\s+(?:dưỡng\s+)?(?:(?:da|ẩm)\s+)?đêm|(?:krim|pelembab)\s+malam|ночно(?:й|е|го)|ночная)\b|"
    r"晚霜|夜用|夜間|ナイト(?:クリーム|ケア|マスク|パック)|나이트\s?(?:크림|케어|팩)|수면\s?팩|กลางคืน|โอเวอร์ไนท์",
    re.IGNORECASE,
)

_MORNING: Final = re.compile(r"\b(?:mornings?|(?-i:AM)\b|a\.m\.|daytime|each day before|during the day)", re.IGNORECASE)
_NIGHT: Final = re.compile(
    r"\b(?:evenings?(?!\s+pr)|nights?|nightly|night-?time|(?-i:PM)\b|p\.m\.|bed-?time|"
    r"before (?:bed|sleep(?:ing)?)|overnight)\b",
    re.IGNORECASE,
)
_NEGATED: Final = re.compile(r"\b(?:not|never|avoid)\b[^.;]{0,40}$", re.IGNORECASE)
_MAX_CHARACTERS: Final = 4000


def use_time_in_name(name: str) -> UseTime | None:
    """Return when a product is used, as its name states; None where the name states nothing."""
    name = name[:_MAX_CHARACTERS]
    if _BOTH_IN_NAME.search(name):
        return "morning and night"
    return _joined(bool(_MORNING_IN_NAME.search(name)), bool(_NIGHT_IN_NAME.search(name)))


def use_time_in_directions(text: str) -> UseTime | None:
    """Return when the directions say to use the product; None where they name no time.

    A time that a negation precedes ("not during the day") does not count.
    """
    text = text[:_MAX_CHARACTERS]
    return _joined(_is_stated(_MORNING, text), _is_stated(_NIGHT, text))


def _is_stated(pattern: re.Pattern[str], text: str) -> bool:
    return any(not _NEGATED.search(text[: match.start()]) for match in pattern.finditer(text))


def _joined(is_morning: bool, is_night: bool) -> UseTime | None:
    if is_morning and is_night:
        return "morning and night"
    if is_morning:
        return "morning"
    return "night" if is_night else None
