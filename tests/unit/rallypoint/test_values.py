from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from rallypoint import values

Class = type[Any]


def both(**options: bool) -> tuple[Class, Class]:
    """The same class as dataclasses makes it, and as we do."""
    made = []
    for decorator in (dataclasses.dataclass, values.dataclass):

        class Point:
            x: int
            y: int = 2
            names: list[str] = field(default_factory=list)

        made.append(decorator(**options)(Point))
    return made[0], made[1]


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("kw_only", [False, True])
def test_what_dataclasses_makes_is_made(slots: bool, kw_only: bool) -> None:
    theirs, ours = both(frozen=True, slots=slots, kw_only=kw_only)
    for arguments in ({"x": 1}, {"x": 1, "y": 3, "names": ["a"]}):
        one, other = theirs(**arguments), ours(**arguments)
        assert repr(other) == repr(one)
        assert dataclasses.asdict(other) == dataclasses.asdict(one)
        assert other == ours(**arguments) == dataclasses.replace(ours(x=0), **dataclasses.asdict(other))
        assert other != ours(x=9)
        assert other != one
    assert ours.__match_args__ == theirs.__match_args__
    assert hasattr(ours(x=1), "__dict__") is not slots
    assert [f.name for f in dataclasses.fields(ours)] == ["x", "y", "names"]


def test_equal_ones_are_one_key() -> None:
    @values.dataclass(frozen=True, slots=True)
    class Key:
        a: int
        b: str

    assert {Key(1, "x"): 1} == {Key(1, "x"): 1}
    assert len({Key(1, "x"), Key(1, "x"), Key(2, "x")}) == 2


def test_one_without_fields_equals_its_like() -> None:
    @values.dataclass(frozen=True, slots=True)
    class Nothing:
        pass

    @values.dataclass(frozen=True, slots=True)
    class Void:
        pass

    nothing: object = Nothing()
    void: object = Void()
    assert nothing == Nothing()
    assert nothing != void
    assert hash(Nothing()) == hash(Nothing())


@values.dataclass(frozen=True, slots=True)
class Kept:
    a: int
    b: tuple[str, ...] = ()


def test_copies_are_equal() -> None:
    kept = Kept(1, ("x",))
    assert copy.deepcopy(kept) == kept
    assert pickle.loads(pickle.dumps(kept)) == kept


def test_one_that_is_not_frozen_is_left_to_dataclasses() -> None:
    @values.dataclass(slots=True)
    class Counter:
        n: int = 0

    counter = Counter()
    counter.n += 1
    assert counter == Counter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


@pytest.mark.parametrize("options", [{"repr": False}, {"compare": False}, {"hash": False}], ids=str)
def test_field_that_is_not_like_the_others_is_refused(options: dict[str, Any]) -> None:
    class Odd:
        a: int = field(default=0, **options)

    with pytest.raises(TypeError, match=r"Odd\.a"):
        values.dataclass(frozen=True)(Odd)
