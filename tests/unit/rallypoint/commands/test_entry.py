from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rallypoint import __version__, cli
from rallypoint.commands import entry, exits

ASKING = ("cancel", "drain", "hold", "release", "restart", "update")
NAMES = (*ASKING, "cluster", "events", "jobs", "nodes", "status")


@pytest.mark.parametrize("name", NAMES)
def test_the_rallypoint_command_finds_it(name: str) -> None:
    assert cli.COMMANDS[name] == f"{entry.__name__}:{name}"
    assert callable(getattr(entry, name))


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert getattr(entry, name)(["--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: rallypoint {name} ")
    assert "--coordinator" in said
    assert ("--reason" in said) is (name in ASKING)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["jobs", "--state", "runing"], "'runing': each must be one of gathering, recovering, running, stopping, "),
        (["jobs", "--state", "running,"], "'running,': each must be one of gathering"),
        (["jobs", "--state", "unspecified"], "'unspecified': each must be one of gathering"),
        (["update", "train"], "nothing is to be changed: give --max-restarts, --nnodes or --label"),
        (["update", "train", "--etag", "x"], "nothing is to be changed"),
        (["update", "train", "--max-restarts", "-1"], "'-1': it must be a number, 0 to 2,147,483,647"),
        (["update", "train", "--max-restarts", "9" * 5_000], "it must be a number, 0 to 2,147,483,647"),
        (["update", "train", "--nnodes", "9" * 5_000], "it must be MIN:MAX, or one number for both"),
        (["update", "train", "--nnodes", "1:"], "'1:': it must be MIN:MAX, or one number for both"),
        (["update", "train", "--nnodes", "1:x"], "'1:x': it must be MIN:MAX, or one number for both"),
        (["update", "train", "--label", "=v"], "it must be KEY=VALUE, or KEY- to take it away"),
        (["update", "train", "--label", "-"], "it must be KEY=VALUE, or KEY- to take it away"),
        (["hold", "train", "--for", "0"], "'0': it must be more than 0 s"),
        (["hold", "train", "--for", "721h"], "it must be at most 30 days, which is 720h"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_said(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert getattr(entry, argv[0])(argv[1:]) == exits.USAGE
    assert said in capsys.readouterr().err


def test_wrong_usage_costs_no_grpc() -> None:
    code = (
        "import sys; from rallypoint.commands.entry import status; assert status(['--timeout', 'x']) == 2;"
        "sys.exit(any(name.startswith(('grpc', 'google')) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("argv", [[], ["--timeout", "3s"]])
def test_our_own_version_costs_no_coordinator(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RALLYPOINT_COORDINATOR", "nobody.invalid:1")
    assert cli.main(["version", *argv]) == 0
    assert capsys.readouterr().out == f"rallypoint {__version__}\n"
    assert cli.main(["version", "-o", "json", *argv]) == 0
    assert json.loads(capsys.readouterr().out) == {"client_version": __version__}


def test_version_says_what_is_wrong_with_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version", "--frobnicate"]) == 2
    assert "--frobnicate" in capsys.readouterr().err
