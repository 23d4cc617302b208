"""How the readers show themselves: as text, and as a table in notebooks."""

import html
from collections.abc import Sequence
from typing import TypeAlias

from zarr.types import ArrayV3

from wavecity.dataset.arrays import dims_of, is_per_user

# Label and text, in the order in which they are shown.
Rows: TypeAlias = Sequence[tuple[str, str]]


def plain(name: str, rows: Rows) -> str:
    """A reader as text: its name, then a line for each fact."""
    width = max(len(label) for label, _ in rows)
    indent = "\n" + " " * (width + 4)
    lines = [f"  {label.ljust(width)}  {text.replace(chr(10), indent)}" for label, text in rows]
    return "\n".join([f"<wavecity.{name}>", *lines])


def table(name: str, rows: Rows) -> str:
    """A reader as an HTML table."""
    cells = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(label)}</th>"
        f"<td style='text-align:left;white-space:pre-wrap'>{html.escape(text)}</td></tr>"
        for label, text in rows
    )
    return f"<div><b>wavecity.{html.escape(name)}</b><table>{cells}</table></div>"


def field_text(name: str, array: ArrayV3) -> str:
    """`csi: complex64 (x 32, y 32), 1, per user`: what one sample has of an array."""
    per_user = is_per_user(array)
    skipped = 2 if per_user else 1
    names = dims_of(array)[skipped:]
    shape = ", ".join(f"{dim} {size}" for dim, size in zip(names, array.shape[skipped:], strict=True))
    unit = str(array.attrs.get("units", ""))
    text = f"{name}: {array.dtype} ({shape})" + (f" {unit}" if unit not in ("", "1") else "")
    return text + ("" if per_user else ", one for a scene")
