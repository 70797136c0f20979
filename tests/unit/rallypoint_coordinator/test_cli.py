from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
        ["--retain-jobs", "-1"],
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
