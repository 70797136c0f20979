from __future__ import annotations

from pathlib import Path

import pytest

from rallypoint_agent.oom import watch_for_oom_kills


def cgroup(tmp_path: Path, own: str, counter: str, content: str) -> tuple[Path, Path, Path]:
    """The mount, the file that stands for /proc/self/cgroup, and the counter's."""
    file = tmp_path / "mount" / counter
    file.parent.mkdir(parents=True)
    file.write_text(content)
    (tmp_path / "own").write_text(own)
    return tmp_path / "mount", tmp_path / "own", file


V2 = "low 0\nhigh 0\nmax 9\noom 5\noom_kill {}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("own", "counter", "text", "name"),
    [
        ("0::/job.slice/a\n", "job.slice/a/memory.events", V2, "/job.slice/a"),
        ("0::/job/with:colon\n", "job/with:colon/memory.events", V2, "/job/with:colon"),
        ("0::/a\n1:name=systemd:/\n", "unified/a/memory.events", V2, "/a"),
        ("4:memory:/docker/x\n0::/\n", "memory/docker/x/memory.oom_control", V1, "/docker/x"),
        ("4:cpu,memory:/x\n", "cpu,memory/x/memory.oom_control", V1, "/x"),
        ("4:memory:/docker/x\n", "memory/memory.oom_control", V1, "/"),
        ("0::/../../host/path\n", "memory.events", V2, "/"),
    ],
)
def test_a_counter_that_rose_is_the_reason(tmp_path: Path, own: str, counter: str, text: str, name: str) -> None:
    mount, proc, file = cgroup(tmp_path, own, counter, text.format(2))
    reason = watch_for_oom_kills(mount, proc)
    assert reason() == ""
    file.write_text(text.format(4))
    assert reason() == f"killed by the kernel's out-of-memory killer (cgroup {name}: oom_kill 2 -> 4)"
    assert watch_for_oom_kills(mount, proc)() == "", "it counts from now on"


@pytest.mark.parametrize(
    ("own", "content"),
    [
        ("", "oom_kill 1"),
        ("garbage\n", "oom_kill 1"),
        ("0::/elsewhere\n", "oom_kill_disable 0\nunder_oom 0\n"),
        ("0::/a\n", "oom_kill many"),
    ],
)
def test_without_a_counter_there_is_no_reason(tmp_path: Path, own: str, content: str) -> None:
    mount, proc, file = cgroup(tmp_path, own, "a/memory.events", content)
    reason = watch_for_oom_kills(mount, proc)
    file.write_text("oom_kill 7")
    assert reason() == ""


def test_a_cgroup_that_goes_away_is_no_reason(tmp_path: Path) -> None:
    mount, proc, file = cgroup(tmp_path, "0::/a\n", "a/memory.events", V2.format(1))
    reason = watch_for_oom_kills(mount, proc)
    file.unlink()
    assert reason() == ""
