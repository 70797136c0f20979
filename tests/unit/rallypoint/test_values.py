from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
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


def test_one_that_is_not_frozen_is_no_key() -> None:
    @values.dataclass(slots=True)
    class Counter:
        n: int = 0

    counter = Counter()
    counter.n += 1
    assert counter == Counter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


MANY = 200
"""Objects of a class: more than are made before its constructor is compiled."""

NONSENSE: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((), {}),
    ((1, 2, [], 3), {}),
    ((1,), {"x": 1}),
    ((1,), {"z": 1}),
)


@pytest.mark.parametrize("kw_only", [False, True])
@pytest.mark.parametrize("slots", [False, True])
def test_first_objects_are_like_later_ones(slots: bool, kw_only: bool) -> None:
    _, ours = both(frozen=True, slots=slots, kw_only=kw_only)
    made = [ours(x=1) for _ in range(MANY)]
    assert all(one == made[0] and repr(one) == repr(made[0]) for one in made)
    assert len({id(one.names) for one in made}) == MANY


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("kw_only", [False, True])
@pytest.mark.parametrize(("args", "kwargs"), NONSENSE)
def test_call_that_makes_no_sense_is_refused_as_by_dataclasses(
    args: tuple[Any, ...], kwargs: dict[str, Any], kw_only: bool, many: bool
) -> None:
    theirs, ours = both(frozen=True, kw_only=kw_only)
    for _ in range(MANY if many else 0):
        ours(x=1)
    with pytest.raises(TypeError) as said:
        theirs(*args, **kwargs)
    with pytest.raises(TypeError, match=re.escape(str(said.value))):
        ours(*args, **kwargs)


@pytest.mark.parametrize("rounds", [1, MANY])
def test_what_is_to_be_checked_is(rounds: int) -> None:
    @values.dataclass(frozen=True, slots=True)
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("odd")

    for _ in range(rounds):
        assert Even(2).n == 2
        with pytest.raises(ValueError, match="odd"):
            Even(3)


@pytest.mark.parametrize("options", [{"init": False}, {"repr": False}, {"compare": False}, {"hash": False}], ids=str)
def test_field_that_is_not_like_the_others_is_refused(options: dict[str, Any]) -> None:
    class Odd:
        a: int = field(default=0, **options)

    with pytest.raises(TypeError, match=r"Odd\.a"):
        values.dataclass(frozen=True)(Odd)


@pytest.mark.parametrize("kw_only", [False, True])
@pytest.mark.parametrize("slots", [False, True])
def test_signature_is_shown_as_by_dataclasses(slots: bool, kw_only: bool) -> None:
    theirs, ours = both(slots=slots, kw_only=kw_only)
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))


def test_subclass_has_its_own_signature() -> None:
    _, ours = both()

    class Named(ours):  # type: ignore[misc, valid-type]
        def __init__(self, name: str) -> None:
            super().__init__(1, names=[name])

    assert list(inspect.signature(Named).parameters) == ["name"]
    assert Named("a").names == ["a"]
