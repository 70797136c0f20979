"""What breaks the protocol of a release is found, whatever it is; what only adds to it is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
PARTS = ("buf.yaml", "CHANGELOG.md", "protos", "tools")


class Tree:
    """A copy of what the tool looks at, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
            copy(REPOSITORY / part, folder / part)
        for image in self.images:
            image.unlink()
        self.write("1.0.0", expected=0)

    @property
    def images(self) -> list[Path]:
        return sorted((self.folder / "protos" / "released").glob("*.binpb"))

    def check(self, *, expected: int) -> str:
        return self._run("check", expected=expected)

    def write(self, version: str, *, expected: int) -> str:
        return self._run("write", version, expected=expected)

    def _run(self, *arguments: str, expected: int) -> str:
        command = [sys.executable, str(self.folder / "tools" / "released.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == expected, done
        return done.stdout + done.stderr

    def edit(self, name: str, pattern: str, replacement: str) -> None:
        """In the one place that matches."""
        path = self.folder / "protos" / "rallypoint" / "v1" / f"{name}.proto"
        text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert count == 1, f"{pattern!r} is there {count} times"
        path.write_text(text)

    def release(self, version: str) -> None:
        changelog = self.folder / "CHANGELOG.md"
        changelog.write_text(changelog.read_text().replace("## [Unreleased]", f"## [Unreleased]\n\n## [{version}]"))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_what_is_as_it_was_breaks_nothing(tree: Tree) -> None:
    assert tree.check(expected=0) == ""


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "said"),
    [
        ("types", r"^  int32 max_restarts = 3;\n", "", 'field "3" with name "max_restarts"'),
        ("types", r"^  int32 max_restarts = 3;", "  reserved 3;", 'field "3" with name "max_restarts"'),
        ("types", r"int32 max_restarts = 3;", "int32 max_restarts = 33;", 'field "3" with name "max_restarts"'),
        ("types", r"int32 max_restarts = 3;", "int32 restarts = 3;", "max_restarts"),
        ("types", r"int32 max_restarts = 3;", "string max_restarts = 3;", "changed type"),
        ("types", r"int32 max_restarts = 3;", "optional int32 max_restarts = 3;", "cardinality"),
        ("types", r"JOB_STATE_CANCELLED = 6;", "JOB_STATE_CANCELED = 6;", "JOB_STATE_CANCELLED"),
        ("agent_service", r"reserved 5 to 7;", "reserved 6 to 7;", "reserved"),
        ("agent_service", r"rpc ReportGone\(", "rpc ReportLost(", "ReportGone"),
        ("agent_service", r"Hold hold = 5;", "Exit hold = 5;", "changed type"),
        ("job_service", r"returns \(stream WatchJobResponse\)", "returns (WatchJobResponse)", "WatchJob"),
        ("journal", r"^  int32 restart_count = 10;\n", "", "restart_count"),
        ("journal", r"^  int32 restart_count = 10;\n", "  reserved 10;\n", "restart_count"),
    ],
)
def test_what_takes_away_or_changes_is_refused(
    tree: Tree, name: str, pattern: str, replacement: str, said: str
) -> None:
    tree.edit(name, pattern, replacement)
    found = tree.check(expected=1)
    assert said in found
    assert "protos/ breaks what protos/released/1.0.0.binpb promises" in found
    assert "1.0.0.binpb" in tree.write("1.1.0", expected=1)
    assert [image.stem for image in tree.images] == ["1.0.0"]


@pytest.mark.parametrize(
    ("name", "pattern", "replacement"),
    [
        ("types", r"int32 max_restarts = 3;", r"\g<0> bool added = 99;"),
        ("types", r"JOB_STATE_CANCELLED = 6;", r"\g<0> JOB_STATE_ADDED = 99;"),
        ("agent_service", r"Keep keep = 11;", r"\g<0> Hold added = 99;"),
        ("agent_service", r"rpc ReportGone\(", r"rpc Added(Hello) returns (Welcome); \g<0>"),
        ("agent_service", r"// Who the agent is\.", "// Another comment."),
        ("journal", r"int32 restart_count = 10;", "int32 restarts_spent = 10;"),
    ],
)
def test_what_adds_is_not(tree: Tree, name: str, pattern: str, replacement: str) -> None:
    tree.edit(name, pattern, replacement)
    tree.check(expected=0)


def test_the_newest_image_counts(tree: Tree) -> None:
    tree.edit("types", r"int32 max_restarts = 3;", r"\g<0> bool added = 99;")
    tree.write("1.10.0", expected=0)
    tree.write("1.9.0", expected=1)
    tree.edit("types", r" bool added = 99;", "")
    assert "1.10.0.binpb" in tree.check(expected=1)


def test_an_image_changes_until_its_release_is_out(tree: Tree) -> None:
    (image,) = tree.images
    before = image.read_bytes()
    tree.write("1.0.0", expected=0)
    assert image.read_bytes() == before
    tree.edit("types", r"int32 max_restarts = 3;", r"\g<0> bool added = 99;")
    tree.write("1.0.0", expected=0)
    assert image.read_bytes() != before
    tree.release("1.0.0")
    assert "1.0.0 is out" in tree.write("1.0.0", expected=1)


def test_a_release_has_an_image(tree: Tree) -> None:
    tree.release("1.1.0")
    assert "CHANGELOG.md has a heading for 1.1.0, but" in tree.check(expected=1)


def test_what_makes_no_sense_is_refused(tree: Tree) -> None:
    assert "usage: " in tree.write("../1.1", expected=1)
    (image,) = tree.images
    image.unlink()
    assert "make release-descriptor" in tree.check(expected=1)
