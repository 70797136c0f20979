"""What the fields of a message must be, as tables, and how what is wrong with one is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration

from rallypoint.errors import Reason, Refusal

_SHOWN_MAX = 80


class Fault(NamedTuple):
    """``path`` must ``must``, but is ``shown``."""

    path: str
    must: str
    shown: str


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


Shape = Mapping[str, "Always | WhenSet | Required | Each"]
"""What a message must be: a rule for each of its fields."""

Spec = Rule | Shape


@dataclass(frozen=True, slots=True)
class Always:
    """A field without presence: its value is checked, zero included."""

    spec: Rule


@dataclass(frozen=True, slots=True)
class WhenSet:
    """A field that may be missing."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Required:
    """A message that must be there."""

    spec: Spec


@dataclass(frozen=True, slots=True)
class Each:
    """A list: at most so many items, and what each of them must be."""

    most: int
    spec: Spec


def first_fault(message: Any, shape: Shape, path: str) -> Fault | None:
    """The first fault in a message, in the order of the shape."""
    for name, field in shape.items():
        at = f"{path}.{name}" if path else name
        fault = _in_field(message, name, field, at)
        if fault is not None:
            return fault
    return None


def _in_field(message: Any, name: str, field: Always | WhenSet | Required | Each, at: str) -> Fault | None:
    match field:
        case Always(spec):
            return fault_in(getattr(message, name), spec, at)
        case Each(most, spec):
            return _in_list(getattr(message, name), most, spec, at)
        case WhenSet(spec) | Required(spec):
            if message.HasField(name):
                return fault_in(getattr(message, name), spec, at)
            return Fault(at, "be set", "missing") if isinstance(field, Required) else None


def _in_list(items: Any, most: int, spec: Spec, at: str) -> Fault | None:
    if len(items) > most:
        return Fault(at, f"have at most {most} items", f"{len(items)} items")
    faults = (fault_in(item, spec, f"{at}[{index}]") for index, item in enumerate(items))
    return next((fault for fault in faults if fault is not None), None)


def fault_in(value: Any, spec: Spec, at: str) -> Fault | None:
    """What is wrong with a value that is at this path, first of all."""
    if not isinstance(spec, Rule):
        return first_fault(value, spec, at)
    return None if spec.holds(value) else Fault(at, spec.must, shown_as(value))


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
