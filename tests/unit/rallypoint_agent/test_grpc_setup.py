from __future__ import annotations

import os

import pytest

from rallypoint_agent import grpc_setup

NAME = "GRPC_ENABLE_FORK_SUPPORT"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_setup, "_before", {})
    monkeypatch.setenv(NAME, "to be undone")
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)


def test_what_we_set_does_not_reach_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME)
    before = dict(os.environ)
    grpc_setup.prepare_environment()
    grpc_setup.prepare_environment()
    assert (os.environ[NAME], os.environ["GRPC_VERBOSITY"]) == ("0", "ERROR")
    assert grpc_setup.scrubbed_environ() == before


def test_it_is_as_it_was_once_that_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    before = dict(os.environ)
    grpc_setup.prepare_environment()
    grpc_setup.restore_environment()
    grpc_setup.restore_environment()
    assert dict(os.environ) == before == grpc_setup.scrubbed_environ()


def test_what_the_user_set_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "1")
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    monkeypatch.setenv("GRPC_EXPERIMENTS", "")
    grpc_setup.prepare_environment()
    scrubbed = grpc_setup.scrubbed_environ()
    assert (os.environ["GRPC_VERBOSITY"], os.environ["GRPC_EXPERIMENTS"]) == ("DEBUG", "")
    assert (scrubbed[NAME], scrubbed["GRPC_VERBOSITY"], scrubbed["GRPC_EXPERIMENTS"]) == ("1", "DEBUG", "")


def test_without_setting_anything_nothing_is_scrubbed() -> None:
    assert grpc_setup.scrubbed_environ() == dict(os.environ)


@pytest.mark.parametrize(("host", "target"), [("node-a", "node-a:1"), ("10.0.0.1", "10.0.0.1:1"), ("::1", "[::1]:1")])
def test_target(host: str, target: str) -> None:
    assert grpc_setup.target((host, 1)) == target
