from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from rallypoint_agent.logs import LogsSpecs, Std, line_prefix


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Std.NONE),
        ("1", Std.OUT),
        ("2", Std.ERR),
        ("3", Std.ALL),
        ("0:1", {0: Std.OUT}),
        ("0:3,1:0,12:2", {0: Std.ALL, 1: Std.NONE, 12: Std.ERR}),
    ],
)
def test_std_is_read(text: str, value: Std | dict[int, Std]) -> None:
    assert Std.from_str(text) == value


@pytest.mark.parametrize("text", ["", "4", "-1", "0:4", "0:1,", ",0:1", "0:1;1:2", "a:1", "33", "٣"])
def test_what_is_no_std(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Std.from_str(text)


def test_a_round_has_a_folder_of_its_own(tmp_path: Path) -> None:
    specs = LogsSpecs(str(tmp_path), redirects=Std.ALL)
    first = specs.reify("job7", 0, 2)
    Path(first.stdouts[1]).write_text("kept")
    second = specs.reify("job7", 1, 2)
    root = Path(specs.root_log_dir)
    assert root.parent == tmp_path
    assert root.name.startswith("job7_")
    assert first.stdouts[1] == str(root / "attempt_0" / "1" / "stdout.log")
    assert second.stderrs[0] == str(root / "attempt_1" / "0" / "stderr.log")
    assert second.error_files[0] == str(root / "attempt_1" / "0" / "error.json")
    assert specs.round_log_dir(1) == str(root / "attempt_1")
    assert Path(first.stdouts[1]).read_text() == "kept"


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    made = [LogsSpecs(str(tmp_path)) for _ in range(2)]
    for specs in made:
        specs.reify("job7", 0, 1)
    assert made[0].root_log_dir != made[1].root_log_dir


def test_who_names_a_log_folder_gets_files_and_sees_them(tmp_path: Path) -> None:
    dest = LogsSpecs(str(tmp_path)).reify("j", 0, 1)
    assert set(dest.stdouts) == set(dest.stderrs) == {0}
    assert (dest.tee_stdouts, dest.tee_stderrs) == (dest.stdouts, dest.stderrs)


def test_who_asks_for_nothing_has_error_files_only() -> None:
    specs = LogsSpecs()
    dest = specs.reify("j", 0, 2)
    assert dest.stdouts == dest.stderrs == dest.tee_stdouts == dest.tee_stderrs == {}
    assert set(dest.error_files) == {0, 1}
    specs.close()


def test_each_rank_has_its_own_streams(tmp_path: Path) -> None:
    specs = LogsSpecs(str(tmp_path), redirects={0: Std.OUT}, tee={1: Std.ERR, 11: Std.ALL})
    dest = specs.reify("j", 0, 12)
    assert set(dest.stdouts) == {0, 11}
    assert set(dest.stderrs) == {1, 11}
    assert set(dest.tee_stdouts) == {11}
    assert set(dest.tee_stderrs) == {1, 11}


def test_without_files_what_is_redirected_is_lost() -> None:
    dest = LogsSpecs(os.devnull, redirects=Std.OUT).reify("j", 0, 1)
    assert dest.stdouts == {0: os.devnull}
    assert dest.stderrs == {}
    assert dest.error_files == {0: ""}


def test_tee_needs_files() -> None:
    with pytest.raises(ValueError, match="tee"):
        LogsSpecs(os.devnull, tee=Std.OUT)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_an_unasked_folder_goes_if_nothing_was_written(temporary: Path) -> None:
    specs = LogsSpecs()
    specs.reify("j", 0, 2)
    assert [folder.name.split("_")[0] for folder in temporary.iterdir()] == ["torchelastic"]
    specs.close()
    assert list(temporary.iterdir()) == []


def test_an_unasked_folder_stays_if_something_was_written(temporary: Path) -> None:
    specs = LogsSpecs()
    dest = specs.reify("j", 0, 2)
    Path(dest.error_files[1]).write_text("{}")
    specs.close()
    assert Path(dest.error_files[1]).exists()
    assert not Path(dest.error_files[0]).parent.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        LogsSpecs(str(tmp_path / "file" / "logs")).make_log_dir()


@pytest.mark.parametrize(
    ("template", "prefix"),
    [
        (None, "[trainer3]:"),
        ("${role_name}/${rank}/${local_rank} ", "trainer/11/3 "),
        ("${other} $rank", "${other} $rank"),
        ("", ""),
    ],
)
def test_the_prefix(template: str | None, prefix: str) -> None:
    assert line_prefix(template, "trainer", 3, 11) == prefix
