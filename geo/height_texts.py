"""Texts of height tags: lengths and numbers of storeys as mappers write them; what is ambiguous is not read."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

FOOT = 0.3048
INCH = 0.0254
# Above these a tag is a typing error (the tallest building of the world is 828 m high and has 163 storeys).
MAX_HEIGHT = 1000.0
MAX_LEVELS = 200.0
# Keys of the top above ground, the first that can be read counts; of the underside; and of storeys.
TOP_KEYS = ("height", "building:height", "est_height")
BASE_KEYS = ("min_height", "building:min_height")
LEVEL_KEYS = ("building:levels", "roof:levels", "building:min_level")
HEIGHT_KEYS = (*TOP_KEYS, *BASE_KEYS, *LEVEL_KEYS)
# Texts that a map's record lists; the rest is counted together.
MOST_LISTED = 50

# A comma before exactly three digits separates thousands, any other is a decimal point.
_NUMBER = r"([1-9]\d{0,2}(?:,\d{3})+(?:\.\d{1,6})?|\d{1,6}(?:\.\d{1,6}|,\d{1,2}|,\d{4,6})?)"
_METRE = "m|meters?|metres?|metros?|metri|mètres?|meter|mts?|mtrs?|м|метр(?:а|ов)?|米|公尺|미터|メートル"
_FLOOR = (
    "floors?|levels?|storeys?|story|stories|étages?|etages?|pisos?|plantas?|andares|piani|stockwerke?|geschosse?|"
    "этаж(?:а|ей)?|층|階|层|層"
)
_METRES = re.compile(rf"^{_NUMBER}\s*(?:{_METRE})?\.?$")
_CENTIMETRES = re.compile(rf"^{_NUMBER}\s*cm$")
_FEET = re.compile(rf"^{_NUMBER}\s*(?:ft|feet|foot|'|’|′)\.?\s*(?:{_NUMBER}\s*(?:in|inch|inches|\"|”|″|'')?)?\.?$")
_APPROXIMATE = re.compile(r"^(?:~|≈|ca?\.?\s|circa\s|about\s|approx\.?\s)\s*")
_STOREYS = re.compile(rf"^{_NUMBER}\s*(?:{_FLOOR})$")
# `G+4` is a ground floor and four more, `5+1` five and an attic or penthouse.
_ABOVE = re.compile(rf"^(g|gf|ground|\d{{1,3}})\s*\+\s*(\d{{1,3}})(?:\s*(?:{_FLOOR}))?$")
# `2,3` is a list, `2,5` two and a half.
_LIST = re.compile(r"^\d{1,3}(?:\s*,\s*\d{1,3})+$")
_HALF = re.compile(r"^\d{1,3},5$")


def parse_length(text: str) -> tuple[float, bool] | None:
    """Length in m of an OSM tag, and whether the tag is exact.

    Understands `12`, `12.5 m`, `12,5`, `14 metros`, `40 ft`, `1,250 ft`, `40'`, `40'6"`, `~12`, and lists or ranges
    (`12;14`, `12-14`), of which the largest counts: a height is the top of the building.

    Returns
    -------
    (float, bool) or None
        None for anything else, for negative and for absurd values (above 1000 m).

    Examples
    --------
    >>> parse_length("40 ft")
    (12.192, True)
    >>> parse_length("~12")
    (12.0, False)
    """
    values, exact = _values(text, _one_length, MAX_HEIGHT)
    return (max(values), exact) if values else None


def parse_levels(text: str) -> float | None:
    """Number of storeys of an OSM tag, None when not a number in 0…200.

    Understands `5`, `2.5`, `2,5`, `~4`, `3 floors`, `G+4` (five), `5+1` (six), and lists or ranges (`3;4`, `2,3`), of
    which the largest counts.

    Examples
    --------
    >>> parse_levels("3;4")
    4.0
    """
    text = text.strip().lower()
    if _LIST.match(text) and not _HALF.match(text):
        text = text.replace(",", ";")
    values, _ = _values(text, _one_level, MAX_LEVELS)
    return max(values) if values else None


def storeys_in_words(text: str) -> float | None:
    """Number of storeys of a text that says that it means storeys (`3 floors`, `G+4`), None of any other.

    Examples
    --------
    >>> storeys_in_words("3 floors")
    3.0
    >>> storeys_in_words("3") is None
    True
    """
    text = text.strip().lower()
    return parse_levels(text) if _STOREYS.match(text) or _ABOVE.match(text) else None


def unread_heights(all_tags: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """Height tags of which nothing could be read, by key and text, the most frequent first.

    Examples
    --------
    >>> unread_heights([{"building": "yes", "height": "tall"}, {"height": "tall"}, {"height": "9"}])
    {'height=tall': 2}
    """
    counts = Counter(
        f"{key}={tags[key][:60]}"
        for tags in all_tags
        for key in HEIGHT_KEYS
        if key in tags and not _is_read(key, tags[key])
    )
    listed = dict(counts.most_common(MOST_LISTED))
    rest = counts.total() - sum(listed.values())
    return listed | ({"other texts": rest} if rest else {})


@lru_cache(maxsize=50_000)
def _is_read(key: str, text: str) -> bool:
    """Whether the text of a tag means anything to us."""
    if key in LEVEL_KEYS:
        return parse_levels(text) is not None
    return parse_length(text) is not None or (key in TOP_KEYS and storeys_in_words(text) is not None)


def _values(text: str, one: Callable[[str], float | None], largest: float) -> tuple[list[float], bool]:
    """Numbers of a list or range, and whether all are exact."""
    text = text.strip().lower()
    plain = _APPROXIMATE.sub("", text)
    pieces = [piece.strip() for piece in re.split(r"[;–—-]|\bto\b", plain)]
    values = [one(piece) for piece in pieces]
    good = [value for value in values if value is not None and value <= largest]
    # "-3" splits into "" and "3": any unreadable piece makes the whole tag unreadable.
    if len(good) < len(pieces):
        return [], False
    return good, plain == text and len(pieces) == 1


def _one_level(text: str) -> float | None:
    """A number of storeys, or None."""
    if match := _ABOVE.match(text):
        return (float(match[1]) if match[1].isdigit() else 1.0) + float(match[2])
    match = re.fullmatch(_NUMBER, text) or _STOREYS.match(text)
    return _value(match[1]) if match else None


def _one_length(text: str) -> float | None:
    """A length in m, or None."""
    if match := _METRES.match(text):
        return _value(match[1])
    if match := _CENTIMETRES.match(text):
        return _value(match[1]) / 100
    if match := _FEET.match(text):
        return _value(match[1]) * FOOT + _value(match[2] or "0") * INCH
    return None


def _value(text: str) -> float:
    """A number as matched by `_NUMBER`."""
    thousands = re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text)
    return float(text.replace(",", "" if thousands else "."))
