from __future__ import annotations

import os
from pathlib import Path

import pytest

from rallypoint.security.files import WatchedFiles


def test_nothing_has_changed_until_something_has(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    files = WatchedFiles([one, two])
    assert files.changed()
    assert files.read() == (b"1", b"2")
    assert not files.changed()
    two.write_bytes(b"22")
    assert files.changed()
    assert files.read() == (b"1", b"22")
    assert not files.changed()


def test_the_same_size_and_time_in_another_file_is_a_change(tmp_path: Path) -> None:
    path, fresh = tmp_path / "one", tmp_path / "fresh"
    path.write_bytes(b"a")
    files = WatchedFiles([path])
    files.read()
    fresh.write_bytes(b"b")
    os.utime(fresh, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    fresh.rename(path)
    assert files.changed()


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes replaces the files of a secret."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    link = tmp_path / "data"
    link.symlink_to("old")
    files = WatchedFiles([link / "token"])
    assert files.read() == (b"old",)
    turned = tmp_path / "data.new"
    turned.symlink_to("new")
    turned.rename(link)
    assert files.changed()
    assert files.read() == (b"new",)


def test_what_is_missing_is_told_once_and_noticed_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "late"
    files = WatchedFiles([path])
    with pytest.raises(FileNotFoundError):
        files.read()
    assert not files.changed()
    path.write_bytes(b"x")
    assert files.changed()
    files.read()
    path.unlink()
    assert files.changed()
