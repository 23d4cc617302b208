"""What the maps of a dataset lacked, what was repaired, and which tags could not be read: for the card and the shell."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from wavecity.dataset.card.source import add_up
from wavecity.dataset.records import MapRecord

Field = Literal["losses", "repairs", "unread_heights"]


def totals(maps: Iterable[MapRecord], field: Field) -> Counter[str]:
    """Numbers of some maps by reason or text, added up; maps of older versions do not say."""
    return add_up(Counter(of.get(field, {})) for of in maps)


def without_heights(maps: Mapping[str, MapRecord]) -> list[str]:
    """Cities whose map states the height of no building."""
    return [city for city, of in maps.items() if of.get("counts", {}).get("with_height", 1) == 0]


def state_lines(maps: Mapping[str, MapRecord]) -> list[str]:
    """Lines on what the maps lack and what was repaired or not read; none where all was well.

    Examples
    --------
    >>> state_lines({"Rio": {"counts": {"tagged": 90}, "losses": {"members are missing in the map": 2}}})
    ['2 of 90 buildings in the map cannot be built: members are missing in the map 2']
    """
    records = list(maps.values())
    tagged = sum(of.get("counts", {}).get("tagged", 0) for of in records)
    lost, repaired, unread = (totals(records, field) for field in ("losses", "repairs", "unread_heights"))
    lines = []
    if bare := without_heights(maps):
        lines.append(
            f"no height is stated by the map of {', '.join(bare[:5])}{' and others' if len(bare) > 5 else ''}: all are "
            "guesses by building type and footprint (height_source guess)"
        )
    if lost:
        lines.append(f"{lost.total():,} of {tagged:,} buildings in the map cannot be built: {_listed(lost)}")
    if repaired:
        lines.append(f"{repaired.total():,} of {tagged:,} buildings in the map were repaired: {_listed(repaired)}")
    for of in records:
        if "heights" in of:
            filled, without, file = (of["heights"][key] for key in ("filled", "without_height", "file"))
            lines.append(f"{filled:,} of {without:,} buildings of {of['file']} without a height have that of {file}")
    if unread:
        lines.append(f"{unread.total():,} height tags could not be read: {_listed(unread)}")
    return lines


def _listed(counts: Counter[str], most: int = 5) -> str:
    """The most frequent with their numbers."""
    text = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(most))
    rest = counts.total() - sum(count for _, count in counts.most_common(most))
    return f"{text}, others {rest:,}" if rest else text
