"""What the command refuses before anything is started."""

from __future__ import annotations

import gc

import pytest

from rallypoint_agent.cli import INTERRUPTED, USAGE, command


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line that is told."""
    assert command([*flags, __file__]) == USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line.removeprefix("rallypoint run: ")


SEVERAL = ("--rdzv-id", "j", "--coordinator", "c:1")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rdzv-id", "a/b"], "--rdzv-id must be"),
        (["--node-name", "a b"], "--node-name must be"),
        (["--local-addr", "a b"], "--local-addr must be a host name"),
        (["--role", "r" * 129], "--role must be at most 128 bytes"),
        (["--lease-ttl", "5s"], "--lease-ttl must be 8 s to 3600 s"),
        (["--max-restarts", "9999999999"], "--max-restarts must be 0 to 2,147,483,647"),
        (["--no-restart-exit-codes", ",".join(map(str, range(1, 66)))], "--no-restart-exit-codes must have at most 64"),
        (["--nnodes", "99999999999", *SEVERAL], "--nnodes must be 1 to 100,000, but is 99,999,999,999"),
        (["--nnodes", "2:99999999999", *SEVERAL], "--nnodes must be 2 to 100,000 (min_nodes or more), but is 99,999"),
    ],
)
def test_what_the_wire_would_refuse_is_refused_by_the_flags_name(
    capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    assert refused(capsys, *flags).startswith(told)


def test_keys_of_torchs_backends_are_told_to_have_no_effect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rallypoint_agent.cli._run", lambda options, logs_specs, coordinator: 0)
    assert command(["--rdzv-conf", "is_host=1,store=agent,read_timeout=9", __file__]) == 0
    assert capsys.readouterr().err == "rallypoint run: --rdzv-conf: no effect here: read_timeout, is_host\n"


def test_an_interrupt_before_anything_began_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rallypoint_agent.cli.parse", interrupt)
    assert command([__file__]) == INTERRUPTED
    assert capsys.readouterr().err == ""


def test_who_calls_it_still_collects_garbage(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "--rdzv-id", "a/b")
    assert gc.isenabled()
