"""The file timer's watchdog, as far as the core knows it."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from rallypoint.model import WatchdogStatus
from rallypoint_agent.core.effects import KillWorker, Report, Say, StopWorkers
from rallypoint_agent.core.events import TimerExpired, WatchdogChanged
from support.agent_script import AgentScript, of


def test_news_of_it_go_out_and_all_else_rides_along(agent: AgentScript) -> None:
    agent.run()
    on = WatchdogStatus(enabled=True)
    assert of(agent.feed(WatchdogChanged(on)), Report)[0].observed.watchdog == on
    busy = replace(on, live_timers=3, progress_time_ms=5)
    assert agent.feed(WatchdogChanged(busy)) == []
    assert of(agent.fail(), Report)[0].observed.watchdog == busy
    expired = replace(busy, last_expiry="rank 0: scope s")
    assert of(agent.feed(WatchdogChanged(expired)), Report)[0].observed.watchdog == expired


def test_a_worker_whose_timer_expired_is_killed_alone(agent: AgentScript) -> None:
    agent.run(0, first_rank=4, world_size=6)
    effects = agent.feed(TimerExpired(0, 1, "step", signal.SIGTERM))
    assert of(effects, KillWorker) == [KillWorker(0, 1, signal.SIGTERM, "its timer expired, scope step")]
    assert of(effects, Say) == [Say("round 0: rank 5 is to be killed: its timer expired, scope step")]
    assert not of(effects, StopWorkers)


@pytest.mark.parametrize(("number", "local_rank"), [(-1, 0), (1, 0), (0, 2), (0, -1)])
def test_a_timer_of_another_round_or_of_no_worker_is_nobodys(agent: AgentScript, number: int, local_rank: int) -> None:
    agent.run()
    assert agent.feed(TimerExpired(number, local_rank, "step", 9)) == []


def test_a_round_that_ends_needs_no_watchdog(agent: AgentScript) -> None:
    assert agent.feed(TimerExpired(0, 0, "step", 9)) == []
    agent.run()
    agent.fail()
    assert agent.feed(TimerExpired(0, 1, "step", 9)) == []
    agent.gone()
    assert agent.feed(TimerExpired(0, 1, "step", 9)) == []
