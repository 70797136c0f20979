from __future__ import annotations

import pytest

from rallypoint_coordinator.security.quotas import PEERS_MAX, Calls, Failures, peer_key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_peer_key(address: str, key: str) -> None:
    assert peer_key(address) == key


def test_a_bucket_is_emptied_and_filled() -> None:
    failures = Failures(burst=3, per_s=0.5)
    assert [failures.allow("a", 100.0) for _ in range(5)] == [True, True, True, False, False]
    assert failures.wait_s("a", 100.0) == 2.0
    assert not failures.allow("a", 101.9)
    assert failures.allow("a", 102.0)
    assert not failures.allow("a", 102.0)
    assert [failures.allow("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_each_peer_has_its_own() -> None:
    failures = Failures(burst=1)
    assert failures.allow("a", 0.0)
    assert not failures.allow("a", 0.0)
    assert failures.allow("b", 0.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    failures = Failures(burst=1)
    assert failures.allow("a", 50.0)
    assert not failures.allow("a", 0.0)


def test_so_many_are_remembered_and_no_more() -> None:
    failures = Failures(burst=1)
    for number in range(PEERS_MAX + 1):
        assert failures.allow(f"peer-{number}", 0.0)
    assert len(failures._buckets) == PEERS_MAX
    assert not failures.allow(f"peer-{PEERS_MAX}", 0.0)


def test_calls_are_counted_by_peer() -> None:
    calls = Calls()
    assert calls.enter("a", 2)
    assert calls.enter("a", 2)
    assert not calls.enter("a", 2)
    assert calls.enter("b", 2)
    calls.leave("a")
    assert calls.enter("a", 2)
    for peer in ("a", "a", "b"):
        calls.leave(peer)
    assert calls._open == {}
