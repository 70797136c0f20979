from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from rallypoint import __version__, cli


def echo(argv: list[str]) -> int:
    print(*argv)
    return 7


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"version": "rallypoint.cli:version", "echo": "tell:echo", "broken": "no_such_package.cli:command"}
    monkeypatch.setattr(cli, "COMMANDS", found)
    monkeypatch.setitem(sys.modules, "tell", SimpleNamespace(echo=echo))


def test_a_command_gets_its_arguments_and_gives_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["echo", "a", "--b"]) == 7
    assert capsys.readouterr().out == "a --b\n"


def test_an_unknown_command_is_refused_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["frobnicate"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "'frobnicate'" in printed.err
    assert "rallypoint --help" in printed.err


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_lists_the_commands(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[1] for line in lines if line.startswith("  rallypoint ")]
    assert listed == ["broken", "echo", "version"]


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.split()[0]) == ("", "usage:")


@pytest.mark.parametrize("argv", [["version"], ["--version"]])
def test_version(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == f"rallypoint {__version__}\n"


def test_a_broken_command_says_so_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["broken"]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "no_such_package" in printed.err


def test_the_command_imports_nothing_it_was_not_asked_for() -> None:
    code = (
        "import sys; from rallypoint.cli import main; main(['version']);"
        "sys.exit(any(name.startswith(('grpc', 'google', 'rallypoint_')) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-m", "rallypoint", "version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rallypoint {__version__}\n"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
