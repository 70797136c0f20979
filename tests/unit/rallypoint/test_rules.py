"""The rules of messages: what is judged, in which order, and what a fault is called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from rallypoint.rules import Always, Each, Fault, Remembered, Required, Rule, Shape, WhenSet, between, fault_in, text_of

_LEAF = Shape({"port": Always(between(1, 65535))})
_TREE = Shape(
    {
        "name": Always(text_of(4)),
        "leaf": Required(_LEAF),
        "spare": WhenSet(_LEAF),
        "leaves": Each(2, _LEAF),
        "words": Each(2, text_of(3)),
    }
)


class _Message(SimpleNamespace):
    """As much of a message as rules look at."""

    def HasField(self, name: str) -> bool:  # protobuf's name
        return getattr(self, name) is not None


def _leaf(port: int = 1) -> _Message:
    return _Message(port=port)


def _tree(**changed: Any) -> _Message:
    fields: dict[str, Any] = {"name": "a", "leaf": _leaf(), "spare": None, "leaves": [], "words": []}
    return _Message(**(fields | changed))


def test_no_fault() -> None:
    whole = _tree(spare=_leaf(), leaves=[_leaf(), _leaf()], words=["abc"])
    assert fault_in(whole, _TREE, "tree") is None


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"name": "abcde"}, Fault("tree.name", "be at most 4 bytes", "'abcde'")),
        ({"leaf": None}, Fault("tree.leaf", "be set", "missing")),
        ({"leaf": _leaf(0)}, Fault("tree.leaf.port", "be 1 to 65,535", "0")),
        ({"spare": _leaf(0)}, Fault("tree.spare.port", "be 1 to 65,535", "0")),
        ({"leaves": [_leaf(), _leaf(0)]}, Fault("tree.leaves[1].port", "be 1 to 65,535", "0")),
        ({"leaves": [_leaf()] * 3}, Fault("tree.leaves", "have at most 2 items", "3 items")),
        ({"words": ["abc", "abcd"]}, Fault("tree.words[1]", "be at most 3 bytes", "'abcd'")),
    ],
    ids=lambda value: value.path if isinstance(value, Fault) else "",
)
def test_fault_is_called_by_its_path(changed: dict[str, Any], fault: Fault) -> None:
    assert fault_in(_tree(**changed), _TREE, "tree") == fault


def test_path_of_a_request_itself_begins_with_its_field() -> None:
    assert fault_in(_tree(leaf=_leaf(0)), _TREE, "") == Fault("leaf.port", "be 1 to 65,535", "0")


def test_first_fault_in_the_order_of_the_shape() -> None:
    fault = fault_in(_tree(leaf=_leaf(0), words=["abcd"], name="abcde"), _TREE, "tree")
    assert fault is not None
    assert fault.path == "tree.name"


def test_what_many_say_alike_is_judged_once_if_it_is_small() -> None:
    judged: list[str] = []

    def is_short(text: str) -> bool:
        judged.append(text)
        return len(text) < 10

    shape = Remembered(Shape({"value": Always(Rule("be short", is_short))}))
    said = ("short", "not so short", "long" * 1000)
    seen = [[fault_in(StringValue(value=text), shape, "at") for text in said] for _ in range(2)]
    assert seen[0] == seen[1]
    assert [fault is None for fault in seen[0]] == [True, False, False]
    assert [judged.count(text) for text in said] == [1, 2, 4]  # a fault is judged again, to be told
