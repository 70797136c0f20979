from __future__ import annotations

import functools
import io
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint_agent import tail_log
from rallypoint_agent.tail_log import (
    CHUNK_BYTES,
    MAX_LINE_BYTES,
    FilteredFile,
    LineSplitter,
    StreamOutput,
    TailLogs,
    console,
)
from support.processes import wait_until
from support.threads import watch_threads


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
def tails() -> Iterator[TailLogs]:
    made = TailLogs()
    yield made
    made.close()


@pytest.fixture
def out() -> Screen:
    return Screen()


def test_lines_are_shown_behind_their_prefix(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    tails.follow(str(tmp_path / "a"), "[a0]:", StreamOutput(out))
    wait_until(lambda: out.text == "[a0]:one\n[a0]:two\n")


def test_each_output_has_its_own(tails: TailLogs, tmp_path: Path) -> None:
    screens = {name: Screen() for name in ("stdout", "stderr")}
    for name, screen in screens.items():
        (tmp_path / name).write_text(f"{name}\n")
        tails.follow(str(tmp_path / name), "", StreamOutput(screen))
    wait_until(lambda: [screen.text for screen in screens.values()] == ["stdout\n", "stderr\n"])


def test_a_file_may_come_later(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    tails.follow(str(tmp_path / "a"), "", StreamOutput(out))
    (tmp_path / "a").write_text("here\n")
    wait_until(lambda: out.text == "here\n")


def test_a_line_that_is_flushed_in_parts_stays_one_line(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    with open(tmp_path / "a", "w", buffering=1) as file, open(tmp_path / "b", "w") as other:
        tails.follow(file.name, "[a]:", StreamOutput(out))
        tails.follow(other.name, "[b]:", StreamOutput(out))
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
    tails.follow(str(tmp_path / "a"), "", StreamOutput(out))
    wait_until(lambda: out.text == "done\n")
    tails.finish()
    wait_until(lambda: out.text == "done\nnot done\n")


def test_all_is_shown_before_close_returns(tmp_path: Path, out: Screen) -> None:
    tails = TailLogs()
    with open(tmp_path / "a", "wb") as file:
        tails.follow(file.name, "", StreamOutput(out))
        file.write(b"x" * 99 + b"\n")
        file.seek(100 * 100_000 - 1)
        file.write(b"\n")
    tails.close()
    assert len(out.content) == 100 * 100_000 + _broken_up(100 * 99_999)


def _broken_up(line: int) -> int:
    """How many line ends a line gains that is shown in pieces."""
    splitter, pieces = LineSplitter(), 0
    for start in range(0, line, CHUNK_BYTES):
        pieces += len(splitter.feed(b"\0" * min(CHUNK_BYTES, line - start)))
    return pieces


def test_what_nobody_wrote_is_nothing(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    tails.follow(str(tmp_path / "never"), "", StreamOutput(out))
    tails.close()
    assert out.text == ""


def test_a_closed_console_is_nowhere(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        free = file.fileno()
    assert console(free) is None
    tails = TailLogs()
    (tmp_path / "a").write_text("lost\n")
    tails.follow(str(tmp_path / "a"), "", StreamOutput(console(free)))
    tails.close()


def test_one_thread_follows_all(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    begun = watch_threads()
    for number in range(20):
        (tmp_path / str(number)).write_text("line\n")
        tails.follow(str(tmp_path / str(number)), "", StreamOutput(out))
    wait_until(lambda: out.text == "line\n" * 20)
    assert begun() == ["tail-logs"]


def test_no_thread_without_a_file() -> None:
    begun = watch_threads()
    tails = TailLogs()
    tails.finish()
    assert begun() == []
    tails.close()


def test_a_reader_that_went_away_stops_nobody(tmp_path: Path, out: Screen) -> None:
    class Broken(io.RawIOBase):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    tails = TailLogs()
    for name, stream in (("stdout", Broken()), ("stderr", out)):
        (tmp_path / name).write_text("line\n")
        tails.follow(str(tmp_path / name), "", StreamOutput(stream))
    tails.close()
    assert out.text == "line\n"


def test_a_file_that_cannot_be_read_is_told_once(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    tails.follow(str(tmp_path), "[a]:", StreamOutput(out))
    tails.close()
    assert out.text.startswith("[a]:<cannot follow: ")
    assert out.text.count("\n") == 1


class Held(Screen):
    """Takes nothing until it is let go, and then all."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go = threading.Event()

    def write(self, data: memoryview) -> int | None:  # type: ignore[override]
        self.asked.set()
        self.go.wait()
        self.content += data
        return len(data)


def test_who_cannot_keep_up_is_told_what_was_skipped_and_sees_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_log, "KEPT_BYTES", 1_000)
    screen, tails, flood = Held(), TailLogs(max_behind=20_000), tmp_path / "flood"
    flood.write_text("first\n")
    tails.follow(str(flood), "[f]:", StreamOutput(screen))
    screen.asked.wait(30)
    lines = [f"{number:08}" for number in range(10_000)]
    with flood.open("a") as file:
        file.write("\n".join(lines) + "\n")
    screen.go.set()
    tails.close()
    first, notice, *shown = screen.text.splitlines()
    assert first == "[f]:first"
    assert shown == [f"[f]:{line}" for line in lines[-len(shown) :]]
    assert 100 < len(shown) < 112
    skipped = 9 * (len(lines) - len(shown))
    assert notice == f"[f]:<{skipped:,} bytes are not shown, being too many at once: see {flood}>"


def test_a_flood_does_not_hide_the_others(tmp_path: Path) -> None:
    """Each file in its turn, a piece of it."""
    screen, tails = Held(), TailLogs()
    for name, content in (("first", "x\n"), ("flood", "y" * 99 + "\n"), ("other", "seen\n")):
        (tmp_path / name).write_text(content * (1 if name != "flood" else 100_000))
        tails.follow(str(tmp_path / name), "", StreamOutput(screen))
    screen.go.set()
    tails.close()
    assert screen.text.index("seen") < 4 * CHUNK_BYTES
    assert len(screen.content) == 2 + 10_000_000 + 5


def test_a_file_that_was_emptied_is_followed_from_its_start(tails: TailLogs, out: Screen, tmp_path: Path) -> None:
    with (tmp_path / "a").open("a") as file:
        tails.follow(file.name, "", StreamOutput(out))
        file.write("before the rotation\n")
        file.flush()
        wait_until(lambda: out.text == "before the rotation\n")
        file.truncate(0)
        file.write("after\n")
        file.flush()
        wait_until(lambda: out.text == "before the rotation\nafter\n")


def test_into_a_pipe_no_line_goes_in_two_writes() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb"), open(write_end, "wb", buffering=0) as writer:
        written: list[bytes] = []

        class Noting(io.RawIOBase):
            def fileno(self) -> int:
                return writer.fileno()

            def write(self, data: memoryview) -> int:  # type: ignore[override]
                written.append(bytes(data))
                return len(data)

        lines = [b"x" * (n % 300) for n in range(200)] + [b"y" * 2 * select.PIPE_BUF, b"z"]
        StreamOutput(Noting()).write_lines(b"[a]:", lines)
    assert b"".join(written) == b"".join(b"[a]:" + line + b"\n" for line in lines)
    assert all(data.endswith(b"\n") for data in written)
    assert [len(data) <= select.PIPE_BUF for data in written].count(False) == 1
    assert len(written) < 20


def test_lines_that_a_filter_picks_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "filtered.log"
    copy = FilteredFile(str(path), ["loss", "a.b"])
    assert path.read_bytes() == b""
    copy.write_lines(b"[a]:", [b"loss 1", b"axb", b"a.b", b"the loss"])
    copy.write_lines(b"[b]:", [b"nothing"])
    copy.write_lines(b"[b]:", [b"\xffloss"])
    assert path.read_bytes() == b"[a]:loss 1\n[a]:a.b\n[a]:the loss\n[b]:\xffloss\n"


def test_a_copy_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "folder" / "filtered.log"
    path.parent.mkdir()
    copy = FilteredFile(str(path), ["x"])
    path.unlink()
    path.parent.rmdir()
    for _ in range(3):
        copy.write_lines(b"", [b"x"])
    assert caplog.text.count("no more lines are copied") == 1


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
