from __future__ import annotations

import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rallypoint_agent.torch_store.commands import (
    Add,
    Append,
    Barrier,
    CancelWait,
    Check,
    Command,
    CompareSet,
    CountKeys,
    Delete,
    Get,
    ListKeys,
    MultiGet,
    MultiSet,
    Ping,
    QueueLength,
    QueuePop,
    QueuePush,
    Set,
    Wait,
)
from rallypoint_agent.torch_store.table import ENTRY_BYTES, Table, Unacceptable
from support.torch_store_words import i64, text

DONE, CANCELLED, READY, NOT_READY = b"\x00", b"\x01", b"\x00", b"\x01"


class Story:
    """A table, and what its clients were told by each command."""

    def __init__(self, most_bytes: int = 2**30) -> None:
        self.table = Table(most_bytes)

    def __call__(self, client: int, command: Command) -> dict[int, bytes]:
        return {reply.client: b"".join(reply.parts) for reply in self.table.apply(client, command)}

    def of(self, command: Command) -> bytes:
        """What client 1 is told."""
        return self(1, command).get(1, b"")


@pytest.fixture
def story() -> Story:
    return Story()


class TestKeys:
    def test_a_value_is_set_read_and_replaced(self, story: Story) -> None:
        assert story.of(Get(b"k")) == text(b"")
        assert story(1, Set(b"k", b"a")) == {}
        assert story.of(Get(b"k")) == text(b"a")
        story.of(Set(b"k", b"b"))
        assert story.of(Get(b"k")) == text(b"b")

    def test_append_begins_with_nothing(self, story: Story) -> None:
        assert story(1, Append(b"k", b"a")) == {}
        story.of(Append(b"k", b"b"))
        assert story.of(Get(b"k")) == text(b"ab")

    @pytest.mark.parametrize(
        ("held", "expected", "told", "holds"),
        [
            (None, b"", b"new", b"new"),
            (None, b"x", b"x", b""),
            (b"old", b"old", b"new", b"new"),
            (b"old", b"x", b"old", b"old"),
            (b"old", b"", b"old", b"old"),
        ],
    )
    def test_compare_set(self, story: Story, held: bytes | None, expected: bytes, told: bytes, holds: bytes) -> None:
        if held is not None:
            story.of(Set(b"k", held))
        assert story.of(CompareSet(b"k", expected, b"new")) == text(told)
        assert story.of(Get(b"k")) == text(holds)

    def test_a_deleted_key_is_gone(self, story: Story) -> None:
        story.of(Set(b"k", b""))
        assert story.of(Delete(b"k")) == i64(1)
        assert story.of(Delete(b"k")) == i64(0)
        assert story.of(Check((b"k",))) == NOT_READY

    def test_many_at_once(self, story: Story) -> None:
        assert story(1, MultiSet(((b"a", b"1"), (b"b", b"")))) == {}
        assert story.of(MultiGet((b"b", b"a", b"none"))) == text(b"") + text(b"1") + text(b"")
        assert story.of(Check((b"a", b"b"))) == READY
        assert story.of(Check((b"a", b"none"))) == NOT_READY
        assert story.of(Check(())) == READY
        assert story.of(CountKeys()) == i64(2)
        assert story.of(ListKeys()) == struct.pack("<Q", 2) + text(b"a") + text(b"b")

    def test_a_ping_comes_back(self, story: Story) -> None:
        assert story.of(Ping(b"1234")) == b"1234"


class TestNumbers:
    def test_a_number_is_kept_as_text(self, story: Story) -> None:
        assert story.of(Add(b"n", 5)) == i64(5)
        assert story.of(Add(b"n", -7)) == i64(-2)
        assert story.of(Get(b"n")) == text(b"-2")

    @pytest.mark.parametrize(
        ("held", "total"),
        [(b"17", 18), (b" 5 workers", 6), (b"%d" % (2**63 - 1), -(2**63)), (b"%d" % -(2**63), 1 - 2**63)],
    )
    def test_what_counts_as_a_number(self, story: Story, held: bytes, total: int) -> None:
        story.of(Set(b"n", held))
        assert story.of(Add(b"n", 1)) == i64(total)

    @pytest.mark.parametrize("held", [b"", b"x1", b"9223372036854775808", b"-9223372036854775809"])
    def test_what_does_not(self, story: Story, held: bytes) -> None:
        story.of(Set(b"n", held))
        for command in (Add(b"n", 1), Barrier(b"n", 1)):
            with pytest.raises(Unacceptable, match="no number"):
                story.of(command)
        assert story.of(Get(b"n")) == text(held)


class TestWaiting:
    def test_it_ends_when_the_last_key_was_seen(self, story: Story) -> None:
        assert story(1, Wait((b"a", b"b", b"a"))) == {}
        assert story(2, Set(b"a", b"")) == {}
        story(2, Delete(b"a"))
        assert story(2, Append(b"b", b"")) == {1: DONE}
        assert story(2, Set(b"a", b"")) == {}

    @pytest.mark.parametrize(
        "command",
        [
            Set(b"k", b""),
            Append(b"k", b""),
            CompareSet(b"k", b"", b"x"),
            MultiSet(((b"k", b""),)),
            QueuePush(b"k", b""),
        ],
    )
    def test_by_whatever_makes_the_key(self, story: Story, command: Command) -> None:
        story(1, Wait((b"k",)))
        assert story(2, command)[1] == DONE

    def test_an_addition_tells_the_waiter_and_the_adder(self, story: Story) -> None:
        story(1, Wait((b"k",)))
        assert story(2, Add(b"k", 3)) == {1: DONE, 2: i64(3)}

    def test_all_who_wait_are_told(self, story: Story) -> None:
        for client in (3, 1, 2):
            story(client, Wait((b"k",)))
        assert [reply.client for reply in story.table.apply(9, Set(b"k", b""))] == [3, 1, 2]

    def test_keys_that_are_there_are_not_waited_for(self, story: Story) -> None:
        story.of(Set(b"k", b""))
        story.of(QueuePush(b"q", b""))
        assert story.of(Wait((b"k", b"q"))) == DONE
        assert story.of(Wait(())) == DONE

    def test_a_wait_can_be_cancelled(self, story: Story) -> None:
        story(1, Wait((b"k",)))
        assert story.of(CancelWait()) == CANCELLED
        assert story.of(CancelWait()) == CANCELLED
        assert story(2, Set(b"k", b"")) == {}

    def test_a_new_wait_replaces_the_old_one(self, story: Story) -> None:
        story(1, Wait((b"a",)))
        story(1, Wait((b"b",)))
        assert story(2, Set(b"a", b"")) == {}
        assert story(2, Set(b"b", b"")) == {1: DONE}

    def test_who_left_is_told_nothing(self, story: Story) -> None:
        story(1, Wait((b"k",)))
        story(2, Barrier(b"b", 2))
        for client in (1, 2, 3):
            story.table.leave(client)
        assert story(3, Set(b"k", b"")) == {}
        assert story(3, Barrier(b"b", 2)) == {3: DONE}


class TestQueues:
    def test_first_in_first_out(self, story: Story) -> None:
        assert story.of(QueuePop(b"q")) == i64(0)
        assert story(1, QueuePush(b"q", b"a")) == {}
        story.of(QueuePush(b"q", b"b"))
        assert story.of(QueueLength(b"q")) == i64(2)
        assert story.of(QueuePop(b"q")) == i64(2) + text(b"a")
        assert story.of(QueuePop(b"q")) == i64(1) + text(b"b")
        assert story.of(QueueLength(b"q")) == i64(0)

    def test_one_item_wakes_one_waiter_the_first(self, story: Story) -> None:
        for client in (2, 1):
            story(client, Wait((b"q",)))
        assert story(3, QueuePush(b"q", b"a")) == {2: DONE}
        assert story(3, QueuePush(b"q", b"b")) == {1: DONE}

    def test_an_emptied_queue_is_not_there(self, story: Story) -> None:
        story.of(QueuePush(b"q", b"a"))
        assert story.of(Check((b"q",))) == READY
        story.of(QueuePop(b"q"))
        assert story.of(Check((b"q",))) == NOT_READY

    def test_a_queue_is_no_key(self, story: Story) -> None:
        story.of(QueuePush(b"q", b"a"))
        assert story.of(CountKeys()) == i64(0)
        assert story.of(Delete(b"q")) == i64(0)


class TestBarriers:
    def test_the_last_to_come_lets_all_go(self, story: Story) -> None:
        assert story(1, Barrier(b"b", 3)) == {}
        assert story(2, Barrier(b"b", 3)) == {}
        assert story(3, Barrier(b"b", 3)) == {1: DONE, 2: DONE, 3: DONE}

    def test_its_key_counts_who_came(self, story: Story) -> None:
        story(1, Barrier(b"b", 2))
        story(1, CancelWait())
        assert story.of(Get(b"b")) == text(b"1")
        assert story(2, Barrier(b"b", 2)) == {2: DONE}


class TestBounds:
    def test_a_full_store_takes_no_more_and_keeps_what_it_has(self) -> None:
        story = Story(most_bytes=2 * ENTRY_BYTES + 20)
        story.of(Set(b"k", b"v" * 9))
        story.of(QueuePush(b"q", b"v" * 9))
        for command in (
            Set(b"x", b""),
            Append(b"k", b"v"),
            Add(b"n", 1),
            QueuePush(b"q", b""),
            MultiSet(((b"k", b""), (b"x", b""))),
        ):
            with pytest.raises(Unacceptable, match="full"):
                story.of(command)
        assert story.of(Get(b"k")) == text(b"v" * 9)
        story.of(QueuePop(b"q"))
        story.of(Set(b"x", b""))

    def test_what_is_gone_frees_its_room(self) -> None:
        story = Story()
        story.of(Set(b"k", b"long"))
        story.of(Set(b"k", b""))
        story.of(QueuePush(b"q", b"x"))
        story.of(QueuePop(b"q"))
        story.of(Delete(b"k"))
        assert story.table.used_bytes == 0


KEYS = st.sampled_from([b"a", b"b", b"c"])
CLIENTS = st.integers(1, 4)


class Waits(RuleBasedStateMachine):
    """Against the plainest model of waiting: a client waits until each of its keys has existed since."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.values: set[bytes] = set()
        self.items: dict[bytes, int] = {}
        self.waits: dict[int, set[bytes]] = {}

    def told(self, client: int, command: Command) -> set[int]:
        """Who of those that wait is told, beside the speaker."""
        return {
            waiter for waiter, reply in self.story(client, command).items() if waiter in self.waits and reply == DONE
        }

    def appears(self, key: bytes) -> set[int]:
        ended = {client for client, keys in self.waits.items() if keys == {key}}
        for keys in self.waits.values():
            keys.discard(key)
        for client in ended:
            del self.waits[client]
        return ended

    @rule(client=CLIENTS, key=KEYS)
    def set(self, client: int, key: bytes) -> None:
        told = self.told(client, Set(key, b"v"))
        self.values.add(key)
        assert told == self.appears(key)

    @rule(client=CLIENTS, key=KEYS)
    def delete(self, client: int, key: bytes) -> None:
        assert self.story(client, Delete(key)) == {client: i64(key in self.values)}
        self.values.discard(key)

    @rule(client=CLIENTS, key=KEYS)
    def push(self, client: int, key: bytes) -> None:
        told = self.told(client, QueuePush(key, b"i"))
        self.items[key] = self.items.get(key, 0) + 1
        first = [waiter for waiter, keys in self.waits.items() if key in keys][:1]
        for waiter in first:
            self.waits[waiter].remove(key)
        assert told == {waiter for waiter in first if not self.waits[waiter]}
        for waiter in told:
            del self.waits[waiter]

    @rule(client=CLIENTS, key=KEYS)
    def pop(self, client: int, key: bytes) -> None:
        length = self.items.get(key, 0)
        expected = i64(length) + (text(b"i") if length else b"")
        assert self.story(client, QueuePop(key)) == {client: expected}
        self.items[key] = max(0, length - 1)

    @rule(client=CLIENTS, keys=st.lists(KEYS, max_size=3))
    def wait(self, client: int, keys: list[bytes]) -> None:
        missing = {key for key in keys if key not in self.values and not self.items.get(key)}
        told = self.story(client, Wait(tuple(keys)))
        assert told == ({} if missing else {client: DONE})
        self.waits.pop(client, None)  # Who waits anew is the last in line.
        if missing:
            self.waits[client] = missing

    @rule(client=CLIENTS)
    def leave(self, client: int) -> None:
        self.story.table.leave(client)
        self.waits.pop(client, None)

    @invariant()
    def each_waits_for_what_it_has_not_seen(self) -> None:
        for client in range(1, 5):
            assert self.story.table.awaited_by(client) == self.waits.get(client, set())


TestWaits = Waits.TestCase
TestWaits.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
