from __future__ import annotations

from rallypoint_agent.keeper import WorkerExited
from rallypoint_agent.local_round import LocalRound
from support.fake_link import assignment


def round_of(workers: int = 2) -> LocalRound:
    made = LocalRound("a", assignment(3, first_rank=4), dict.fromkeys(range(workers), ""))
    made.pids = {rank: 100 + rank for rank in range(workers)}
    return made


def exited(local_rank: int, exit_code: int, at_ns: int = 50) -> WorkerExited:
    return WorkerExited(3, local_rank, 100 + local_rank, exit_code, at_ns, 1_700_000_000.1236)


def test_it_has_succeeded_when_all_exited_with_0() -> None:
    round_ = round_of()
    round_.exited(exited(0, 0))
    assert not round_.has_succeeded(2)
    round_.exited(exited(1, 0))
    assert round_.has_succeeded(2)
    assert round_.take_failures(late=True) == ()


def test_a_failure_is_taken_once_and_in_the_order_of_the_exits() -> None:
    round_ = round_of(3)
    round_.exited(exited(2, 1))
    round_.exited(exited(1, 0))
    round_.exited(exited(0, -9))
    taken = round_.take_failures()
    assert [(failure.rank, failure.exit_code, failure.after_stop) for failure in taken] == [
        (6, 1, False),
        (4, -9, False),
    ]
    assert (taken[0].node, taken[0].local_rank, taken[0].pid) == ("a", 2, 102)
    assert taken[0].fail_time_ms == 1_700_000_000_124
    assert round_.take_failures(late=True) == ()


def test_what_ends_after_a_stop_was_sent_is_collateral_and_taken_late() -> None:
    round_ = round_of(3)
    round_.stop_sent(100, 900)
    round_.stop_sent(110, 700)  # A second one: they knew since the first.
    round_.exited(exited(0, 1, at_ns=99))
    round_.exited(exited(1, -15, at_ns=100))
    assert [failure.rank for failure in round_.take_failures()] == [4]
    (late,) = round_.take_failures(late=True)
    assert (late.rank, late.after_stop) == (5, True)


def test_who_was_killed_for_want_of_memory_is_told_so() -> None:
    round_ = round_of(4)
    round_.oom_reason = lambda: "killed for want of memory"
    round_.exited(exited(0, -9))
    round_.exited(exited(1, 1))
    round_.condemn(2, 60, 9, "it hung")
    round_.exited(exited(2, -9, at_ns=70))
    round_.stop_sent(80, 100)
    round_.exited(exited(3, -9, at_ns=100))
    messages = [failure.message for failure in round_.take_failures(late=True)]
    assert messages == ["SIGKILL; killed for want of memory", "exit code 1", "SIGKILL; it hung", "SIGKILL"]


def test_who_ended_by_itself_while_the_disk_was_full_is_told_so() -> None:
    round_ = round_of(5)
    round_.full_disk = lambda local_rank: f"no space for {local_rank}"
    round_.exited(exited(0, 1))
    round_.exited(exited(1, -15))
    round_.exited(exited(2, 0))
    round_.condemn(3, 60, 15, "it hung")
    round_.exited(exited(3, 1, at_ns=70))
    round_.stop_sent(80, 100)
    round_.exited(exited(4, 1, at_ns=100))
    messages = [failure.message for failure in round_.take_failures(late=True)]
    assert messages == ["exit code 1; no space for 0", "SIGTERM", "exit code 1; it hung", "exit code 1"]


def test_without_a_sign_of_it_nobody_is_said_to_be_out_of_memory() -> None:
    round_ = round_of()
    round_.oom_reason = lambda: ""
    round_.exited(exited(0, -9))
    assert [failure.message for failure in round_.take_failures()] == ["SIGKILL"]


def test_what_ends_once_the_fence_struck_is_no_success() -> None:
    round_ = round_of()
    round_.fence_ns = (100, 200)
    round_.exited(exited(0, 0, at_ns=99))
    round_.exited(exited(1, 0, at_ns=101))
    assert not round_.has_succeeded(2)
    assert round_.take_failures() == ()


def test_the_soonest_of_all_stops_and_the_fence_is_when_all_is_killed() -> None:
    round_ = round_of()
    round_.stop_sent(100, 900)
    assert round_.kill_at_ns == 900
    round_.stop_sent(110, 700)
    round_.stop_sent(120, 800)
    assert round_.kill_at_ns == 700
    round_.fence_ns = (500, 600)
    assert round_.kill_at_ns == 600


def test_whoever_ran_died_with_the_keeper() -> None:
    round_ = round_of()
    round_.exited(exited(0, 0))
    round_.keeper_died(-9, 200)
    (failure,) = round_.take_failures()
    assert (failure.rank, failure.pid, failure.exit_code) == (5, 101, -9)
    assert failure.message == "SIGKILL; the keeper died (exit code -9), and the worker with it"


def test_whoever_the_watchdog_kills_failed_for_its_reason() -> None:
    round_ = round_of(3)
    round_.condemn(0, 100, 9, "its timer expired, scope s")
    round_.condemn(0, 200, 15, "a second reason")
    round_.exited(exited(1, 1, at_ns=150))
    round_.exited(exited(0, -9, at_ns=150))
    messages = [failure.message for failure in round_.take_failures()]
    assert messages == ["exit code 1", "SIGKILL; its timer expired, scope s"]


def test_to_be_killed_and_to_exit_with_0_is_a_failure() -> None:
    round_ = round_of()
    round_.condemn(0, 100, 15, "its timer expired, scope s")
    round_.exited(exited(0, 0, at_ns=100))
    round_.exited(exited(1, 0, at_ns=100))
    assert not round_.has_succeeded(2)
    (failure,) = round_.take_failures()
    assert (failure.exit_code, failure.message) == (-15, "SIGTERM; its timer expired, scope s")


def test_what_ended_before_the_watchdog_struck_ended_by_itself() -> None:
    round_ = round_of()
    round_.condemn(0, 100, 9, "its timer expired, scope s")
    round_.condemn(1, 100, 9, "its timer expired, scope s")
    round_.exited(exited(0, 0, at_ns=99))
    round_.exited(exited(1, 3, at_ns=99))
    (failure,) = round_.take_failures()
    assert (failure.rank, failure.exit_code, failure.message) == (5, 3, "exit code 3")


def test_who_is_given_up_has_failed_at_once_and_for_good() -> None:
    round_ = round_of()
    round_.give_up(1, 60, "in uninterruptible sleep")
    assert round_.running == {0: 100}
    (failure,) = round_.take_failures()
    assert (failure.local_rank, failure.pid, failure.exit_code) == (1, 101, -9)
    assert failure.message == "SIGKILL; in uninterruptible sleep"
    assert not failure.after_stop
    round_.exited(exited(0, 0))
    round_.exited(exited(1, 0, at_ns=500))  # It woke up after all.
    assert round_.running == {}
    assert not round_.has_succeeded(2)
    assert round_.take_failures(late=True) == ()
