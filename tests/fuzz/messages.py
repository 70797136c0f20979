"""Protobuf messages that parse and make little sense: a valid one, some of whose fields say something else."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fuzz.mutate import mutated

_INTEGERS = (0, 1, -1, 2, 3, 127, 255, 65535, 65536, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
_TEXTS = (
    *(
        "",
        "train",
        "other",
        "jobs/train",
        "jobs/other",
        "jobs/train/nodes/node-0",
        "node-0",
        "node-1",
        "a",
        "../..",
        "\0",
    ),
    *("a" * 129, "é" * 200, "x" * 70_000, "\n\x1b[2J", "127.0.0.1", "[::1]", "0.0.0.0", "jobs//nodes/", "\u202e", "*"),
)
_FEW = 3
_MANY = 300
_DEEPEST = 6

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


def changed(rng: Random, message: Message) -> bytes:
    """The message after a few changes of its fields; one time in five the bytes are changed as well."""
    copy = type(message)()
    copy.CopyFrom(message)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        change(rng, copy)
    data = copy.SerializeToString()
    return mutated(rng, [data]) if rng.random() < 0.2 else data


def change(rng: Random, message: Message, depth: int = 0) -> None:
    """Change one field, here or further in."""
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    present = [field for field, _ in message.ListFields() if field.message_type is not None]
    if present and depth < _DEEPEST and rng.random() < 0.7:
        _inside(rng, message, rng.choice(present), depth)
    elif fields:
        field = rng.choice(fields)
        if rng.random() < 0.15:
            message.ClearField(field.name)
        elif field.is_repeated:
            _change_list(rng, message, field)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, _value(rng, field))


def _inside(rng: Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    inner: Any = getattr(message, field.name)
    if not field.is_repeated:
        change(rng, inner, depth + 1)
    elif _is_map(field):
        _change_list(rng, message, field)
    else:
        change(rng, rng.choice(inner), depth + 1)


def _change_list(rng: Random, message: Message, field: Any) -> None:
    items: Any = getattr(message, field.name)
    count = _MANY if rng.random() < 0.05 else rng.randint(1, _FEW)
    if _is_map(field):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        for number in range(count):
            name = _value(rng, key)
            items[f"{name}{number}" if isinstance(name, str) else name] = _value(rng, value)
    elif field.message_type is not None:
        last = items[-1] if items else None
        for _ in range(count):
            added = items.add()
            if last is not None:
                added.CopyFrom(last)
    else:
        items.extend(_value(rng, field) for _ in range(count))


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _value(rng: Random, field: FieldDescriptor) -> Any:
    return _VALUES.get(field.cpp_type, _integer)(rng, field)


def _integer(rng: Random, field: FieldDescriptor) -> int:
    low, high = _RANGES[field.cpp_type]
    number = rng.choice(_INTEGERS) if rng.random() < 0.6 else rng.randint(-5, 60)
    if field.enum_type is not None and rng.random() < 0.8:
        number = rng.choice([value.number for value in field.enum_type.values])
    return min(max(number, low), high)


def _text(rng: Random, field: FieldDescriptor) -> str:
    return rng.choice(_TEXTS)


def _truth(rng: Random, field: FieldDescriptor) -> bool:
    return rng.random() < 0.5


def _real(rng: Random, field: FieldDescriptor) -> float:
    return rng.choice((0.0, -0.0, 1e308, float("inf"), float("nan"), -1.5))


_VALUES: dict[int, Callable[[Random, FieldDescriptor], Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: _truth,
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_DOUBLE: _real,
    FieldDescriptor.CPPTYPE_FLOAT: _real,
}
