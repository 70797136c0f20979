"""The cases that were found, a short run of each target, and that the targets notice what they are there for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fuzz import campaign, run
from fuzz.campaign import TARGETS, Finding, Slice, corpus_of, draw, judge, quiet, run_slice
from fuzz.script import Step, pack, unpack
from fuzz.target import Target
from rallypoint_agent import file_timer, predecessor
from rallypoint_agent.core import directives
from rallypoint_agent.keeper import framing
from rallypoint_coordinator.core import handlers
from rallypoint_coordinator.security.tokens import Table
from rallypoint_coordinator.server import guard
from rallypoint_coordinator.store import sqlite_format

SHORT_INPUTS = 40
CASES = [(name, path) for name in TARGETS for path in corpus_of(name)]


def test_each_target_is_run() -> None:
    modules = Path(campaign.__file__).parent.joinpath("targets").glob("*.py")
    assert {path.stem for path in modules} == TARGETS.keys()
    assert {path.name for path in campaign.CORPUS.iterdir()} <= TARGETS.keys()


@pytest.mark.parametrize(("name", "path"), CASES, ids=lambda value: getattr(value, "name", value))
def test_what_was_found_is_found_no_more(name: str, path: Path) -> None:
    with quiet():
        finding = judge(name, path.read_bytes())
    assert finding is None, finding.told


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    found = run_slice(name, seed=0, first=0, count=SHORT_INPUTS)
    assert found.inputs == SHORT_INPUTS
    assert not found.findings, found.findings[0].told


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "certificates"])  # those are new in each process
def test_the_same_seed_draws_the_same(name: str) -> None:
    assert [draw(name, 3, number) for number in range(5)] == [draw(name, 3, number) for number in range(5)]
    assert draw(name, 3, 0) != draw(name, 4, 0)


# --- each finding is one again if what was mended is broken


class _Never(Exception):
    """Nobody raises it."""


BROKEN: list[tuple[str, str, Any, str, Any]] = [
    ("rpc", "a-request-that-is-no-message", guard, "DecodeError", _Never),
    ("rpc", "a-hello-that-is-no-message", guard, "DecodeError", _Never),
    ("rpc", "a-later-message-that-is-none", guard, "DecodeError", _Never),
    ("grpc_calls", "no-message-to-each-method", guard, "DecodeError", _Never),
    ("grpc_calls", "no-message-to-health-by-anybody", guard, "DecodeError", _Never),
    ("grpc_calls", "a-method-that-grpcio-lacks", guard, "NotImplementedError", _Never),
    ("journal", "one-byte-is-left", sqlite_format, "make_ready", lambda path: path.touch()),
    ("journal", "a-name-that-is-no-text", sqlite_format, "UnicodeDecodeError", _Never),
    ("leftovers", "a-frame-nested-too-deep", framing, "RecursionError", _Never),
    ("leftovers", "a-record-nested-too-deep", predecessor, "RecursionError", _Never),
    ("coordinator_says", "ranks-beyond-int32", directives, "_problem", lambda directive, workers: ""),
    ("coordinator_says", "an-offer-beyond-int64", directives, "_problem", lambda directive, workers: ""),
]


@pytest.mark.parametrize(("name", "case", "where", "what", "instead"), BROKEN, ids=[broken[1] for broken in BROKEN])
def test_it_is_found_again(
    name: str, case: str, where: Any, what: str, instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, what, instead, raising=False)
    with quiet():
        assert judge(name, (campaign.CORPUS / name / case).read_bytes()) is not None


# --- what no input has done yet would be noticed


def found_in(name: str, count: int) -> list[Finding]:
    return run_slice(name, seed=0, first=0, count=count).findings


@pytest.fixture(autouse=True)
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_MINIMISE_TRIES", 20)


def test_a_checksum_that_is_not_looked_at_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_format, "check_crc", lambda *_: None)
    assert any("opens to another state" in finding.told for finding in found_in("journal", 200))


def test_who_is_condemned_in_anothers_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_timer, "_owner", lambda ranks, pid: (2, 0))
    assert any("nobody named it" in finding.told for finding in found_in("timers", 20))


def test_an_error_of_the_core_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    assert not found_in("rpc", 1)  # from here on there are the two jobs with which each input begins
    monkeypatch.setattr(handlers, "observed", fail)
    assert any("a bug" in finding.told for finding in found_in("rpc", 40))


def test_who_is_let_in_without_a_credential_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "of_token", lambda table, token: next(iter(table.tokens.values())))
    assert any("let in" in finding.told for finding in found_in("credentials", 40))


# --- the runner


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that fails for what has an x in it, and hangs for a y."""

    def check(data: bytes) -> None:
        if b"y" in data:
            while True:
                pass
        assert b"x" not in data, "there is an x"

    target = Target(check=check, generate=lambda rng: rng.choice((b"abc", b"deafxghi")))
    monkeypatch.setattr(campaign, "load", lambda name: target)
    monkeypatch.setattr(campaign, "HANG_S", 0.05)


@pytest.mark.usefixtures("broken")
def test_a_finding_is_made_small() -> None:
    (finding,) = run_slice("texts", seed=0, first=0, count=20).findings
    assert finding.data == b"x"
    assert "there is an x" in finding.told


@pytest.mark.usefixtures("broken")
def test_an_input_that_does_not_end_is_a_finding() -> None:
    finding = judge("texts", b"y")
    assert finding is not None
    assert finding.where.startswith("Hang")


@pytest.mark.usefixtures("broken")
def test_a_finding_is_told_with_a_command_that_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "NOTES", tmp_path)
    assert run.fuzz(run.parts_of(20, ["texts"]), seed=0, jobs=1) == 1
    told = capsys.readouterr().out
    assert "texts: 20 inputs, 1 findings" in told
    (path,) = (tmp_path / "findings" / "texts").iterdir()
    assert f"--target texts --file {path}" in told
    assert run.show("texts", path) == 1


def test_what_was_run_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NOTES", tmp_path)
    parts = run.parts_of(40, ["texts"])
    assert run.fuzz(parts, seed=0, jobs=1) == 0
    monkeypatch.setattr(run, "run_slice", lambda *_: pytest.fail("it is run again"))
    assert run.fuzz(parts, seed=0, jobs=1) == 0


def test_what_was_run_on_other_code_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NOTES", tmp_path / "notes")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "texts.py").write_text("BEFORE = 1")
    parts, ran = run.parts_of(40, ["texts"]), list[int]()
    assert run.fuzz(parts, seed=0, jobs=1) == 0
    (tmp_path / "common" / "texts.py").write_text("AFTER = 1")

    def note(name: str, seed: int, first: int, count: int) -> Slice:
        ran.append(first)
        return Slice(name, count)

    monkeypatch.setattr(run, "run_slice", note)
    assert run.fuzz(parts, seed=0, jobs=1) == 0
    assert ran == [0]


def test_shares_come_to_the_whole() -> None:
    parts = run.parts_of(100_000, list(TARGETS))
    assert 100_000 <= sum(part.size for part in parts) <= 100_000 + len(TARGETS)
    assert {part.target for part in parts} == TARGETS.keys()
    assert len(set(parts)) == len(parts)


def test_any_bytes_are_a_script() -> None:
    steps = [Step(1, b"ab"), Step(255, b"")]
    assert list(unpack(pack(steps))) == steps
    assert list(unpack(b"\x01")) == [Step(1, b"")]
    assert list(unpack(b"\x01\x00\x09ab")) == [Step(1, b"ab")]
