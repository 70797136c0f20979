"""What the fields of a message must be, as tables, and how what is wrong with one is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from rallypoint.errors import Reason, Refusal
from rallypoint.values import dataclass

_SHOWN_MAX = 80

_REMEMBERED_BYTES = 1024
_REMEMBERED_MAX = 256


class Fault(NamedTuple):
    """``path`` must ``must``, but is ``shown``."""

    path: str
    must: str
    shown: str

    def under(self, outer: str) -> Fault:
        """The same fault, as it is called outside of the message or list that it is in."""
        is_joined = not outer or not self.path or self.path.startswith("[")
        return self._replace(path=f"{outer}{self.path}" if is_joined else f"{outer}.{self.path}")


def refusal_of(fault: Fault) -> Refusal:
    """INVALID_FIELD, in words and for machines."""
    path, must, shown = fault
    return Refusal(
        reason=Reason.INVALID_FIELD,
        message=f"{path} must {must}, but is {shown}",
        field=path,
        metadata={"field": path, "must": must, "value": shown},
    )


def shown_as(value: object) -> str:
    """A value as a message shows it: one line of bounded length."""
    if value == "":
        return "empty"
    if isinstance(value, Duration):
        return f"{value.seconds + value.nanos / 1e9:.15g} s"
    text = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


@dataclass(frozen=True, slots=True)
class Rule:
    """What one value must be. ``must`` completes the sentence "the field must ..."."""

    must: str
    holds: Callable[[Any], bool]

    def fault(self, value: Any) -> Fault | None:
        return None if self.holds(value) else Fault("", self.must, shown_as(value))


class Shape:
    """What a message must be: a rule for each of its fields, which are judged in this order.

    A coordinator judges every message of every agent, and hardly any has a fault: so where a fault is, is put together
    on the way out of it.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Always | WhenSet | Required | Each]) -> None:
        self._fields = tuple((name, field.fault) for name, field in fields.items())

    def fault(self, message: Any) -> Fault | None:
        for name, fault_of in self._fields:
            fault = fault_of(message, name)
            if fault is not None:
                return fault.under(name)
        return None


class Remembered:
    """The shape of a message that many senders say alike: a small one is judged once for the same bytes."""

    __slots__ = ("_judged", "_shape")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

        @lru_cache(_REMEMBERED_MAX)
        def judged(read: Callable[[bytes], Any], data: bytes) -> Fault | None:
            return shape.fault(read(data))

        self._judged = judged

    def fault(self, message: Any) -> Fault | None:
        data = message.SerializeToString()
        if len(data) > _REMEMBERED_BYTES:
            return self._shape.fault(message)
        return self._judged(type(message).FromString, data)


Spec = Rule | Shape | Remembered


@dataclass(frozen=True, slots=True)
class Always:
    """A field without presence: its value is checked, zero included."""

    spec: Rule

    def fault(self, message: Any, name: str) -> Fault | None:
        value = getattr(message, name)
        return None if self.spec.holds(value) else self.spec.fault(value)


@dataclass(frozen=True, slots=True)
class WhenSet:
    """A field that may be missing."""

    spec: Spec

    def fault(self, message: Any, name: str) -> Fault | None:
        return self.spec.fault(getattr(message, name)) if message.HasField(name) else None


@dataclass(frozen=True, slots=True)
class Required:
    """A message that must be there."""

    spec: Spec

    def fault(self, message: Any, name: str) -> Fault | None:
        if not message.HasField(name):
            return Fault("", "be set", "missing")
        return self.spec.fault(getattr(message, name))


@dataclass(frozen=True, slots=True)
class Each:
    """A list: at most so many items, and what each of them must be."""

    most: int
    spec: Spec

    def fault(self, message: Any, name: str) -> Fault | None:
        items = getattr(message, name)
        if len(items) > self.most:
            return Fault("", f"have at most {self.most} items", f"{len(items)} items")
        for index, item in enumerate(items):
            fault = self.spec.fault(item)
            if fault is not None:
                return fault.under(f"[{index}]")
        return None


def fault_in(value: Any, spec: Spec, at: str) -> Fault | None:
    """What is wrong with a value that is at this path, first of all."""
    fault = spec.fault(value)
    return fault.under(at) if fault is not None else None


def between(low: int, high: int) -> Rule:
    """A number, both bounds included."""
    return Rule(f"be {low:,} to {high:,}", lambda value: low <= value <= high)


def text_of(most: int) -> Rule:
    """A text of at most so many bytes."""
    return Rule(f"be at most {most} bytes", lambda value: len(value.encode()) <= most)


def matching(pattern: str, must: str) -> Rule:
    """A text that the whole pattern matches."""
    compiled = re.compile(pattern)
    return Rule(must, lambda value: compiled.fullmatch(value) is not None)


ANYTHING = Rule("be anything", lambda value: True)
NOT_NEGATIVE = Rule("be 0 or more", lambda value: value >= 0)
