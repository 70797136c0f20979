from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_agent.entry_points import EntryPointError
from rallypoint_agent.logs import DefaultLogsSpecs, LogsDest, LogsSpecs, Std, line_prefix, load_logs_specs, to_map
from support.entry_points import plug_in


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


@pytest.mark.parametrize("text", ["", "4", "-1", "0:4", "0:1,", ",0:1", "0:1;1:2", "a:1", "00:1", "33", "٣"])
def test_what_is_no_std(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Std.from_str(text)


@given(st.one_of(st.text("0123,:; 9-", max_size=12), st.from_regex(r"([0-9]{1,3}:[0-4],?){1,4}", fullmatch=True)))
def test_any_text_is_read_or_refused_and_what_was_read_can_be_written_again(text: str) -> None:
    try:
        value = Std.from_str(text)
    except ValueError:
        return
    if isinstance(value, Std):
        assert text == str(int(value))
        return
    pairs = [item.split(":") for item in text.split(",")]
    assert value == {int(rank): Std(int(one)) for rank, one in pairs}
    assert len(value) == len(pairs)


@given(st.dictionaries(st.integers(0, 10**9 - 1), st.sampled_from(Std), min_size=1))
def test_every_mapping_can_be_said(by_rank: dict[int, Std]) -> None:
    assert Std.from_str(",".join(f"{rank}:{int(std)}" for rank, std in by_rank.items())) == by_rank


def test_a_mapping_says_nothing_of_the_ranks_it_does_not_name() -> None:
    assert to_map(Std.OUT, 2) == {0: Std.OUT, 1: Std.OUT}
    assert to_map({1: Std.OUT, 7: Std.ALL}, 2) == {0: Std.NONE, 1: Std.OUT}


def envs(local_world_size: int, **env: str) -> dict[int, dict[str, str]]:
    return {local_rank: dict(env) for local_rank in range(local_world_size)}


def reify(specs: LogsSpecs, local_world_size: int, round_number: int = 0) -> LogsDest:
    return specs.reify(envs(local_world_size, TORCHELASTIC_RUN_ID="job7", RALLYPOINT_ROUND=str(round_number)))


def test_a_round_has_a_folder_of_its_own(tmp_path: Path) -> None:
    specs = DefaultLogsSpecs(str(tmp_path), redirects=Std.ALL)
    first = reify(specs, 2)
    Path(first.stdouts[1]).write_text("kept")
    second = reify(specs, 2, 1)
    (root,) = tmp_path.iterdir()
    assert root.name.startswith("job7_")
    assert first.stdouts[1] == str(root / "attempt_0" / "1" / "stdout.log")
    assert first.log_dir == str(root / "attempt_0")
    assert second.stderrs[0] == str(root / "attempt_1" / "0" / "stderr.log")
    assert second.error_files[0] == str(root / "attempt_1" / "0" / "error.json")
    assert second.filtered_stdout == str(root / "attempt_1" / "filtered_stdout.log")
    assert second.filtered_stderr == str(root / "attempt_1" / "filtered_stderr.log")
    assert specs.root_log_dir == str(tmp_path)
    assert Path(first.stdouts[1]).read_text() == "kept"


def test_the_same_round_twice_deletes_nothing(tmp_path: Path) -> None:
    specs = DefaultLogsSpecs(str(tmp_path), redirects=Std.ALL)
    Path(reify(specs, 1).stdouts[0]).write_text("kept")
    assert Path(reify(specs, 1).stdouts[0]).read_text() == "kept"


def test_without_a_round_the_folder_is_the_restarts() -> None:
    specs = DefaultLogsSpecs()
    dest = specs.reify(envs(1, TORCHELASTIC_RESTART_COUNT="3"))
    assert "/attempt_3/" in dest.error_files[0]
    specs.close()


def test_the_workers_are_told_where_their_error_files_are(tmp_path: Path) -> None:
    given = envs(2)
    dest = DefaultLogsSpecs(str(tmp_path)).reify(given)
    assert {rank: env["TORCHELASTIC_ERROR_FILE"] for rank, env in given.items()} == dest.error_files


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    made = [reify(DefaultLogsSpecs(str(tmp_path), Std.ALL), 1) for _ in range(2)]
    assert made[0].log_dir != made[1].log_dir


def test_who_asks_for_nothing_has_error_files_only() -> None:
    specs = DefaultLogsSpecs()
    dest = reify(specs, 2)
    assert dest.stdouts == dest.stderrs == {0: "", 1: ""}
    assert dest.tee_stdouts == dest.tee_stderrs == {}
    assert set(dest.error_files) == {0, 1}
    assert dest.log_dir == ""
    specs.close()


def written(files: dict[int, str]) -> set[int]:
    return {rank for rank, path in files.items() if path not in ("", os.devnull)}


def test_each_rank_has_its_own_streams(tmp_path: Path) -> None:
    specs = DefaultLogsSpecs(str(tmp_path), redirects={0: Std.OUT}, tee={1: Std.ERR, 11: Std.ALL})
    dest = reify(specs, 12)
    assert written(dest.stdouts) == {0, 11}
    assert written(dest.stderrs) == {1, 11}
    assert set(dest.tee_stdouts) == {11}
    assert set(dest.tee_stderrs) == {1, 11}


def test_what_is_filtered_is_written_and_not_shown(tmp_path: Path) -> None:
    dest = reify(DefaultLogsSpecs(str(tmp_path), tee=Std.OUT, local_ranks_filter={1, 99}), 2)
    assert written(dest.stdouts) == {0, 1}
    assert set(dest.tee_stdouts) == {1}
    assert dest.stderrs == {0: os.devnull, 1: ""}


def test_without_files_all_is_shown_as_it_comes() -> None:
    given = envs(2, TORCHELASTIC_ERROR_FILE="another")
    dest = DefaultLogsSpecs(os.devnull, redirects=Std.OUT, tee=Std.ERR).reify(given)
    assert dest == LogsDest({0: "", 1: ""}, {0: "", 1: ""}, error_files={0: os.devnull, 1: os.devnull})
    assert [env["TORCHELASTIC_ERROR_FILE"] for env in given.values()] == ["", ""]


def test_without_files_a_rank_can_be_left_out_as_well() -> None:
    dest = DefaultLogsSpecs(os.devnull, local_ranks_filter={0}).reify(envs(2))
    assert dest.stdouts == dest.stderrs == {0: "", 1: os.devnull}


@pytest.mark.parametrize("name", [None, "default"])
def test_the_default_is_what_no_name_means(name: str | None, tmp_path: Path) -> None:
    specs = load_logs_specs(name, str(tmp_path), Std.NONE, {0: Std.OUT}, {0})
    assert isinstance(specs, DefaultLogsSpecs)
    assert set(reify(specs, 2).tee_stdouts) == {0}


class Plugged(LogsSpecs):
    """Takes what it is given."""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        return LogsDest(stdouts={0: f"{self._root_log_dir} {self._redirects} {self._tee}"})

    @property
    def root_log_dir(self) -> str:
        return ""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, monkeypatch, "torchrun.logs_specs", {"mine": "plugged_logs:Plugged", "bad": "plugged_logs:bad"})
    monkeypatch.setitem(sys.modules, "plugged_logs", SimpleNamespace(Plugged=Plugged, bad=3))


@pytest.mark.usefixtures("plugged")
def test_ones_own_is_an_entry_point() -> None:
    specs = load_logs_specs("mine", "/logs", Std.OUT, {3: Std.ERR}, None)
    assert isinstance(specs, Plugged)
    assert reify(specs, 1).stdouts == {0: f"/logs {Std.OUT} { {3: Std.ERR} }"}


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(("name", "told"), [("nobodys", "there are bad, .*mine"), ("bad", "3 is no LogsSpecs")])
def test_what_is_no_such_entry_point_is_told(name: str, told: str) -> None:
    with pytest.raises(EntryPointError, match=told):
        load_logs_specs(name, None, Std.NONE, Std.NONE, None)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_an_unasked_folder_goes_if_nothing_was_written(temporary: Path) -> None:
    specs = DefaultLogsSpecs()
    reify(specs, 2)
    assert [folder.name.split("_")[0] for folder in temporary.iterdir()] == ["torchelastic"]
    specs.close()
    assert list(temporary.iterdir()) == []


def test_an_unasked_folder_stays_if_something_was_written(temporary: Path) -> None:
    specs = DefaultLogsSpecs()
    dest = reify(specs, 2)
    Path(dest.error_files[1]).write_text("{}")
    specs.close()
    assert Path(dest.error_files[1]).exists()
    assert not Path(dest.error_files[0]).parent.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        DefaultLogsSpecs(str(tmp_path / "file" / "logs"))


@pytest.mark.parametrize(
    ("template", "prefix"),
    [
        (None, "[trainer3]:"),
        ("${role_name}/${rank}/${local_rank} ", "trainer/11/3 "),
        ("${other} $rank$$", "${other} 11$"),
        ("", "[trainer3]:"),
    ],
)
def test_the_prefix(template: str | None, prefix: str) -> None:
    assert line_prefix(template, "trainer", 3, 11) == prefix
