from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rallypoint.security.server_tls import ServerTls
from rallypoint_coordinator import cli
from rallypoint_coordinator.server.options import Address, ServerOptions


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerOptions]:
    """What would have been started."""
    options: list[ServerOptions] = []

    def run(wanted: ServerOptions) -> int:
        options.append(wanted)
        return 0

    monkeypatch.setattr(cli, "_run", run)
    monkeypatch.setattr(cli, "_log_to_stderr", lambda level: None)
    return options


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ([], ServerOptions(listen=Address("127.0.0.1", 29400))),
        (["--listen", "[::1]:0"], ServerOptions(listen=Address("::1", 0))),
        (["--listen=0.0.0.0:1", "--insecure"], ServerOptions(listen=Address("0.0.0.0", 1))),
        (["--store", "memory"], ServerOptions(listen=Address("127.0.0.1", 29400))),
        (["--embedded"], ServerOptions(listen=Address("127.0.0.1", 29400), embedded=True)),
        (["--exit-when-idle", "1m"], ServerOptions(listen=Address("127.0.0.1", 29400), exit_when_idle_s=60.0)),
        (["--data-dir", "x/y"], ServerOptions(listen=Address("127.0.0.1", 29400), data_dir=Path("x/y"))),
        (
            ["--retain-jobs=0", "--retain-days", "7", "--snapshot-every", "1"],
            ServerOptions(listen=Address("127.0.0.1", 29400), retain_jobs=0, retain_days=7, snapshot_every=1),
        ),
        (["--retain-nodes", "0"], ServerOptions(listen=Address("127.0.0.1", 29400), retain_nodes=0)),
        (["--keep-events", "1"], ServerOptions(listen=Address("127.0.0.1", 29400), keep_events_mib=1)),
        (
            ["--max-calls-per-peer", "5"],
            ServerOptions(listen=Address("127.0.0.1", 29400), calls_per_peer=5),
        ),
    ],
)
def test_options(argv: list[str], options: ServerOptions, started: list[ServerOptions]) -> None:
    assert cli.command(argv) == 0
    assert started == [options]


@pytest.mark.parametrize("listen", ["0.0.0.0:29400", "[::]:29400", "node-a:29400"])
def test_an_open_door_is_refused_on_one_line(
    listen: str, started: list[ServerOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.command(["--listen", listen]) == 2
    assert started == []
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert listen in said
    assert "--insecure" in said


@pytest.mark.parametrize(
    "argv",
    [
        ["--listen", "nowhere"],
        ["--listen", "::1:29400"],
        ["--store", "sqlite"],
        ["--data-dir", "x", "--store", "memory"],
        ["--data-dir"],
        ["--data-dir", ""],
        ["--token-file", ""],
        ["--max-calls-per-peer", "0"],
        ["--retain-jobs", "-1"],
        ["--retain-nodes", "-1"],
        ["--retain-days", "1.5"],
        ["--snapshot-every", "0"],
        ["--exit-when-idle", "0"],
        ["--exit-when-idle", "soon"],
        ["--log-level", "loud"],
        ["--lis", "127.0.0.1:0"],
        ["extra"],
    ],
)
def test_wrong_usage(argv: list[str], started: list[ServerOptions], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(argv) == 2
    assert started == []
    assert capsys.readouterr().err.splitlines()[-1].startswith("rallypoint coordinator: error: ")


TLS = ServerTls(Path("c"), Path("k"))
TLS_FLAGS = ["--tls-cert", "c", "--tls-key", "k"]


@pytest.mark.parametrize(
    ("more", "tls", "token_file"),
    [
        (["--token-file", "t"], TLS, Path("t")),
        (["--tls-client-ca", "a"], replace(TLS, client_ca=Path("a")), None),
        (["--tls-client-ca", "a", "--token-file", "t"], replace(TLS, client_ca=Path("a")), Path("t")),
    ],
)
def test_a_door_with_tls_and_credentials_may_be_where_others_reach_it(
    more: list[str], tls: ServerTls, token_file: Path | None, started: list[ServerOptions]
) -> None:
    assert cli.command(["--listen", "0.0.0.0:1", *TLS_FLAGS, *more]) == 0
    assert started == [ServerOptions(listen=Address("0.0.0.0", 1), tls=tls, token_file=token_file)]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--listen", "0.0.0.0:1", *TLS_FLAGS], "whoever reaches it may do everything"),
        (["--listen", "0.0.0.0:1", "--token-file", "t"], "whoever is on the way"),
        (["--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        (["--tls-client-ca", "a"], "--tls-client-ca needs --tls-cert"),
    ],
)
def test_half_a_lock_is_refused_on_one_line(
    argv: list[str], said: str, started: list[ServerOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.command(argv) == 2
    assert started == []
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert said in shown


def test_loopback_needs_no_lock(started: list[ServerOptions]) -> None:
    assert cli.command(["--token-file", "t", "--max-calls-per-peer", "7"]) == 0
    assert started == [ServerOptions(listen=Address("127.0.0.1", 29400), token_file=Path("t"), calls_per_peer=7)]


def test_who_calls_it_still_collects_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_log_to_stderr", lambda level: None)
    monkeypatch.setattr("rallypoint_coordinator.server.process.run", lambda options: 1)
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")
    monkeypatch.setenv("GRPC_EXPERIMENTS", "")
    assert cli.command([]) == 1
    assert gc.isenabled()


def test_what_a_person_told_grpc_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_log_to_stderr", lambda level: None)
    monkeypatch.setattr("rallypoint_coordinator.server.process.run", lambda options: 0)
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    monkeypatch.setenv("GRPC_EXPERIMENTS", "event_engine_listener")
    assert cli.command([]) == 0
    assert (os.environ["GRPC_VERBOSITY"], os.environ["GRPC_EXPERIMENTS"]) == ("DEBUG", "event_engine_listener")


def test_help_is_quick_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "127.0.0.1:29400" in shown
    assert "embedded" not in shown
    code = (
        "import sys; from rallypoint_coordinator.cli import command; command(['--help']);"
        "sys.exit(any(name.partition('.')[0] in ('grpc', 'google', 'asyncio') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
