"""Named tuples as JSON has them, and back."""

from __future__ import annotations

from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: plain(field) for name, field in value._asdict().items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def read(kind: type[T], value: Any) -> T:
    """What :func:`plain` was given, of this kind."""
    made: Any = value
    if get_origin(kind) is list:
        (each,) = get_args(kind)
        made = [read(each, one) for one in value]
    elif hasattr(kind, "_fields"):
        made = kind(**{name: read(hint, value[name]) for name, hint in get_type_hints(kind).items()})
    result: T = made
    return result
