"""C1: whoever has seen more than the journal says is turned away, whatever backup the journal was restored from."""

from __future__ import annotations

import pytest

from rallypoint.errors import Reason
from rallypoint.model import NO_VERSION, JobSpec, Version
from rallypoint_coordinator.core.effects import RefuseStream, SendWelcome
from support.coordinator_script import Agent, Script, effects_of

PAIR = JobSpec(min_nodes=2, max_nodes=2)


def seen(agent: Agent) -> Version:
    assert agent.directive is not None
    return agent.directive.version


def came_back(agent: Agent, version: Version) -> bool:
    """Whether an agent that has seen this is taken; it must be told why it is not."""
    out = agent.attach(highest_version=version)
    refusals = [effect.refusal.reason for effect in effects_of(out, RefuseStream) if effect.stream == agent.stream]
    assert refusals in ([], [Reason.JOURNAL_BEHIND])
    return bool(effects_of(out, SendWelcome))


def test_everybody_comes_back_to_a_journal_that_is_whole() -> None:
    script = Script()
    agents = script.running("ab", PAIR)
    for _ in range(3):
        versions = [seen(agent) for agent in agents]
        script.restart()
        assert all(came_back(agent, version) for agent, version in zip(agents, versions, strict=True))


def test_nobody_comes_back_to_an_old_backup() -> None:
    script = Script()
    a, b = script.attached("ab", PAIR)
    backup = len(script.journal)
    a.fail()
    b.clear()
    versions = [seen(a), seen(b)]
    del script.journal[backup:]
    script.restart()
    assert versions[0].epoch < script.cluster.epoch, "it is the revision that tells"
    for _ in range(20):
        assert not came_back(a, versions[0])
        assert not came_back(b, versions[1])
        script.agent("c", PAIR).reborn().attach(job="another", fresh=True)
        script.advance(60_000)
    assert script.stamp.revision > max(versions).revision, "however far the restored journal goes"


@pytest.mark.parametrize(
    ("ahead", "taken"),
    [((0, 0), True), ((0, 1), False), ((1, 0), False), ((1, -5), False)],
)
def test_the_bound_is_exact(ahead: tuple[int, int], taken: bool) -> None:
    script = Script()
    a, _ = script.attached("ab", PAIR)
    epoch, revision = ahead
    version = Version(script.cluster.epoch + epoch, script.stamp.revision + revision)
    assert came_back(a, version) is taken


def test_who_has_seen_nothing_is_taken() -> None:
    script = Script()
    script.restart()
    assert came_back(script.agent("a", PAIR), NO_VERSION)
