"""Whether the fields of a dataclass hold what they are annotated with: for what people fill in by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class _Kind(NamedTuple):
    words: str
    holds: Callable[[Any], bool]


def _is_number(kind: type) -> Callable[[Any], bool]:
    """numpy's numbers are some too; True is none."""
    return lambda value: isinstance(value, kind) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


_OR_NONE = " | None"
_MAPPING = _Kind("a dict", lambda value: isinstance(value, Mapping))
_KINDS = {
    "int": _Kind("a whole number", _is_number(Integral)),
    "float": _Kind("a number", _is_number(Real)),
    "str": _Kind("a text", _is_text),
    "bool": _Kind("True or False", lambda value: isinstance(value, bool)),
    "dict[str, Any]": _MAPPING,
    "dict[str, str]": _MAPPING,
    "list[str]": _Kind("a list of texts", _is_texts),
}
"""By annotation, as it is written."""


def check_types(given: DataclassInstance) -> None:
    """Raises ValueError for the first field that holds something else; fields with other annotations are let be."""
    for field in fields(given):
        annotation = str(field.type)
        kind = _KINDS.get(annotation.removesuffix(_OR_NONE))
        value = getattr(given, field.name)
        if kind is None or (value is None and annotation.endswith(_OR_NONE)) or kind.holds(value):
            continue
        words = f"{kind.words} or None" if annotation.endswith(_OR_NONE) else kind.words
        raise ValueError(f"{field.name} must be {words}, not {value!r}")
