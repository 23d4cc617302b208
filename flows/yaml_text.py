"""Recipes as text: YAML without duplicate keys, and the values of `--set`."""

from collections.abc import Hashable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from wavecity.geo.errors import InputError


class _Loader(yaml.SafeLoader):
    """As PyYAML's safe loader, which takes the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a mapping that has a key twice."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                msg = f"{name!r} is there twice, in lines {seen[name]} and {line}; keep one of them"
                raise yaml.YAMLError(msg)
            seen[name] = line
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """Text of a file that a user wrote.

    Raises
    ------
    InputError
        It is not UTF-8, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        msg = f"{path}: line {line} is not UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8"
        raise InputError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error})"
        raise InputError(msg) from error


def parse(text: str, origin: str) -> object:
    """Content of YAML.

    Raises
    ------
    InputError
        It is no YAML, or has a key twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.YAMLError as error:
        msg = f"{origin}: not valid YAML: {' '.join(str(error).split())}"
        raise InputError(msg) from error


def value_of(text: str, model: type[BaseModel], path: str) -> object:
    """Value of a `--set`: YAML, but text as it stands where the key takes text, so that paths may hold `#` and `: `.

    Examples
    --------
    >>> value_of("maps/#1: north.osm", Recipe, "area.source")
    'maps/#1: north.osm'
    >>> value_of("NO", Recipe, "area.country")
    'NO'
    """
    kinds = _kinds(model, path.split("."))
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if (
        str in kinds
        and kinds <= {str, NoneType}
        and not quoted
        and not (NoneType in kinds and text in ("", "~", "null"))
    ):
        return text
    return parse(text, f"--set {path}={text}")


def _kinds(model: type[BaseModel], path: list[str]) -> set[object]:
    """Types that a key may have; none if there is no such key."""
    field = model.model_fields.get(path[0])
    if field is None:
        return set()
    kinds = (
        set(get_args(field.annotation)) if get_origin(field.annotation) in (Union, UnionType) else {field.annotation}
    )
    if len(path) == 1:
        return kinds
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return _kinds(sections[0], path[1:]) if sections else set()
