from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_agent.tail_log import CHUNK_BYTES, MAX_LINE_BYTES, LineSplitter, TailLogs, console
from support.processes import wait_until


class Screen(io.RawIOBase):
    """Takes a bit of each write only, as a pipe may, and now and then nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.content = bytearray()
        self._calls = 0

    def write(self, data: memoryview) -> int | None:  # type: ignore[override]
        self._calls += 1
        if self._calls % 50 == 2:
            return None
        part = data[: 1 + len(data) // 2]
        self.content += part
        return len(part)

    def shows(self, text: str) -> bool:
        return text in self.text

    @property
    def text(self) -> str:
        return self.content.decode()


@pytest.fixture
def screens() -> tuple[Screen, Screen]:
    return Screen(), Screen()


@pytest.fixture
def tails(screens: tuple[Screen, Screen]) -> Iterator[TailLogs]:
    made = TailLogs(*screens)
    yield made
    made.close()


@pytest.fixture
def out(screens: tuple[Screen, Screen]) -> Screen:
    return screens[0]


def test_lines_are_shown_behind_their_prefix(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    tails.follow(str(tmp_path / "a"), "[a0]:", "stdout")
    wait_until(lambda: out.text == "[a0]:one\n[a0]:two\n")


def test_each_output_has_its_own(tails: TailLogs, screens: tuple[Screen, Screen], tmp_path: Path) -> None:
    for name in ("stdout", "stderr"):
        (tmp_path / name).write_text(f"{name}\n")
        tails.follow(str(tmp_path / name), "", name)
    wait_until(lambda: [screen.text for screen in screens] == ["stdout\n", "stderr\n"])


def test_a_file_may_come_later(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    tails.follow(str(tmp_path / "a"), "", "stdout")
    (tmp_path / "a").write_text("here\n")
    wait_until(lambda: out.text == "here\n")


def test_a_line_that_is_flushed_in_parts_stays_one_line(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    with open(tmp_path / "a", "w", buffering=1) as file, open(tmp_path / "b", "w") as other:
        tails.follow(file.name, "[a]:", "stdout")
        tails.follow(other.name, "[b]:", "stdout")
        for number, part in enumerate(["par", "ts of ", "a line"]):
            file.write(part)
            file.flush()
            # That the other file's line was shown says that this part had been read as well.
            other.write(f"{number}\n")
            other.flush()
            shown = f"[b]:{number}\n"
            wait_until(functools.partial(out.shows, shown))
        file.write("\n")
    wait_until(lambda: "[a]:parts of a line\n" in out.text)
    assert out.text.count("[a]:") == 1


def test_an_unfinished_line_is_shown_at_the_end(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("done\nnot done")
    tails.follow(str(tmp_path / "a"), "", "stdout")
    wait_until(lambda: out.text == "done\n")
    tails.finish()
    wait_until(lambda: out.text == "done\nnot done\n")


def test_all_is_shown_before_close_returns(tmp_path: Path, screens: tuple[Screen, Screen]) -> None:
    tails = TailLogs(*screens)
    with open(tmp_path / "a", "wb") as file:
        tails.follow(file.name, "", "stdout")
        file.write(b"x" * 99 + b"\n")
        file.seek(100 * 100_000 - 1)
        file.write(b"\n")
    tails.close()
    assert len(screens[0].content) == 100 * 100_000 + _broken_up(100 * 99_999)


def _broken_up(line: int) -> int:
    """How many line ends a line gains that is shown in pieces."""
    splitter, pieces = LineSplitter(), 0
    for start in range(0, line, CHUNK_BYTES):
        pieces += len(splitter.feed(b"\0" * min(CHUNK_BYTES, line - start)))
    return pieces


def test_what_nobody_wrote_is_nothing(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    tails.follow(str(tmp_path / "never"), "", "stdout")
    tails.close()
    assert out.text == ""


def test_a_closed_console_is_nowhere(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        free = file.fileno()
    assert console(free) is None
    tails = TailLogs(console(free), None)
    (tmp_path / "a").write_text("lost\n")
    tails.follow(str(tmp_path / "a"), "", "stdout")
    tails.close()


def test_one_thread_follows_all(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    before = threading.active_count()
    for number in range(20):
        (tmp_path / str(number)).write_text("line\n")
        tails.follow(str(tmp_path / str(number)), "", "stdout")
    wait_until(lambda: out.text == "line\n" * 20)
    assert threading.active_count() == before + 1


def test_no_thread_without_a_file(screens: tuple[Screen, Screen]) -> None:
    before = threading.active_count()
    tails = TailLogs(*screens)
    tails.finish()
    assert threading.active_count() == before
    tails.close()


def test_a_reader_that_went_away_stops_nobody(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    err = Screen()
    tails = TailLogs(Broken(), err)
    for name in ("stdout", "stderr"):
        (tmp_path / name).write_text("line\n")
        tails.follow(str(tmp_path / name), "", name)
    tails.close()
    assert err.text == "line\n"


def test_a_file_that_cannot_be_read_is_told_once(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    tails.follow(str(tmp_path), "[a]:", "stdout")
    tails.close()
    assert out.text.startswith("[a]:<cannot follow: ")
    assert out.text.count("\n") == 1


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a", b"b\n"], [b"ab"]),
        ([b"a\r\nb\r\n"], [b"a", b"b"]),
        ([b"a\r", b"\nb\n"], [b"a", b"b"]),
        ([b"10%\r20%\r", b"30%\n"], [b"10%", b"20%", b"30%"]),
        ([b"\n\n"], [b"", b""]),
        ([b"", b"a"], []),
        ([b"\xff\xfe\x0b\x0c\n"], [b"\xff\xfe\x0b\x0c"]),
    ],
)
def test_lines_are_cut(parts: list[bytes], lines: list[bytes]) -> None:
    splitter = LineSplitter()
    assert [line for part in parts for line in splitter.feed(part)] == lines


def test_a_line_without_end_costs_no_memory() -> None:
    splitter = LineSplitter()
    pieces = [piece for _ in range(100) for piece in splitter.feed(b"x" * CHUNK_BYTES)]
    pieces += splitter.flush()
    assert sum(map(len, pieces)) == 100 * CHUNK_BYTES
    assert max(map(len, pieces)) <= MAX_LINE_BYTES + CHUNK_BYTES


@given(st.lists(st.text("ab\n", max_size=5).map(str.encode), max_size=12))
def test_how_it_is_flushed_does_not_matter(parts: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for part in parts for line in splitter.feed(part)] + splitter.flush()
    assert lines == b"".join(parts).splitlines()
