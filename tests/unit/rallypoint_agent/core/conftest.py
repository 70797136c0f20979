"""The agent that most of these tests begin with."""

from __future__ import annotations

import pytest

from support.agent_script import AgentScript


@pytest.fixture
def agent() -> AgentScript:
    return AgentScript()
