"""Who gets past the cluster's door, and who is turned away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rallypoint.errors import Reason
from rallypoint.model import JobSpec, StoreHost, Version
from rallypoint_coordinator.core.effects import RefuseStream, SendLeaseStale
from support.coordinator_script import Script, effects_of, kinds

PAIR = JobSpec(min_nodes=2, max_nodes=2, max_restarts=1)


@pytest.fixture
def script() -> Script:
    return Script()


class TestDoor:
    def test_a_differing_spec_is_refused_with_the_field_and_both_values(self, script: Script) -> None:
        script.attached("a", PAIR)
        out = script.agent("b", replace(PAIR, max_restarts=5)).attach()
        refusal = effects_of(out, RefuseStream)[0].refusal
        assert refusal.reason is Reason.SPEC_MISMATCH
        assert refusal.field == "hello.job_spec.max_restarts"
        assert refusal.metadata == {"field": "max_restarts", "job": "1", "agent": "5"}

    def test_a_silent_holder_of_the_job_to_its_spec_is_named_and_until_when(self, script: Script) -> None:
        script.attached("a", PAIR)[0].break_stream()
        script.advance(20_000)
        out = script.agent("b", replace(PAIR, max_restarts=5)).attach()
        refusal = effects_of(out, RefuseStream)[0].refusal
        assert refusal.metadata["held"] == "a was heard last, and its lease ends in 12 s"
        assert refusal.message.endswith(f"this agent says 5; {refusal.metadata['held']}")

    def test_who_hosts_the_store_must_agree(self, script: Script) -> None:
        script.attached("a", replace(PAIR, store_host=StoreHost.AGENT))
        out = script.agent("b", PAIR).attach()
        refusal = effects_of(out, RefuseStream)[0].refusal
        assert refusal.metadata == {"field": "store_host", "job": "AGENT", "agent": "WORKER"}

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"cluster_id": "elsewhere"}, Reason.WRONG_CLUSTER),
            ({"job_uid": "yesterday"}, Reason.UNKNOWN_LIFE),
            ({"highest_version": Version(9_000_000, 1)}, Reason.JOURNAL_BEHIND),
        ],
    )
    def test_a_hello_from_another_history_is_refused(
        self, script: Script, changes: dict[str, Any], reason: Reason
    ) -> None:
        script.advance(2 * PAIR.coordinator_outage_ms)
        out = script.agent("a", PAIR).attach(**changes)
        assert effects_of(out, RefuseStream)[0].refusal.reason is reason
        assert kinds(out) == []

    def test_a_stale_lease_is_told_once_and_changes_nothing(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        out = a.heartbeat(lease_id=999)
        assert len(effects_of(out, SendLeaseStale)) == 1
        assert kinds(out) == []

    def test_an_unknown_stream_is_ignored(self, script: Script) -> None:
        a, _ = script.running("ab", PAIR)
        a.stream = 77
        out = a.heartbeat()
        assert (out.records, out.effects) == ([], [])
