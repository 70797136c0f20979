from __future__ import annotations

import time
from pathlib import Path

import pytest

from rallypoint_agent.agent_health import (
    AGENT_SERVICE,
    HEALTH_CHECK_PORT_VARIABLE,
    HEALTHZ_PORT_VARIABLE,
    WATCHDOG_SERVICE,
    WORKERS_SERVICE,
    AgentHealth,
)
from rallypoint_agent.file_timer import FileTimerServer
from rallypoint_agent.health_check_server import HealthCheckServer


class Agent:
    def __init__(self, watchdog: FileTimerServer | None = None) -> None:
        self.turned_at = time.time()
        self.has_workers = False
        self.health = AgentHealth(
            turned_at=lambda: self.turned_at, has_workers=lambda: self.has_workers, watchdog=watchdog
        )


class Silent(HealthCheckServer):
    """Serves nobody."""

    def start(self) -> None:
        pass


def answers(agent: Agent) -> dict[str, bool]:
    server = Silent(agent.health.alive_time, 0)
    agent.health.start({}, server)
    return {name: check() for name, check in server.checks.items()}


@pytest.fixture
def watchdog(tmp_path: Path) -> FileTimerServer:
    return FileTimerServer(str(tmp_path / "timer"), 30)


def test_an_agent_that_waits_for_nodes_is_well_and_has_no_workers() -> None:
    assert answers(Agent()) == {"": True, AGENT_SERVICE: True, WORKERS_SERVICE: False}


def test_a_main_loop_that_hangs_is_not_well_whatever_runs(watchdog: FileTimerServer) -> None:
    agent = Agent(watchdog)
    agent.turned_at -= 62
    agent.has_workers = True
    assert answers(agent) == {"": False, AGENT_SERVICE: False, WATCHDOG_SERVICE: True, WORKERS_SERVICE: False}
    watchdog.close()


def test_a_watchdog_that_makes_no_pass_is_not_well(watchdog: FileTimerServer) -> None:
    agent = Agent(watchdog)
    agent.has_workers = True
    watchdog._progress_time -= 62
    assert answers(agent) == {"": False, AGENT_SERVICE: True, WATCHDOG_SERVICE: False, WORKERS_SERVICE: True}
    watchdog.look()
    assert all(answers(agent).values())
    watchdog.close()


@pytest.mark.parametrize("variable", [HEALTH_CHECK_PORT_VARIABLE, HEALTHZ_PORT_VARIABLE])
@pytest.mark.parametrize("port", ["", "x", "-1", "70000", "\u0663"])
def test_what_is_no_port_is_told_and_no_hindrance(variable: str, port: str, caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    agent.health.start({variable: port}, None)
    assert f"no health checks are served: {variable}={port} is no port" in caplog.text
    agent.health.stop()
