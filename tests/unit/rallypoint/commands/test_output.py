from __future__ import annotations

import errno
import json
import os
from io import BytesIO, StringIO, TextIOWrapper

import pytest

from rallypoint.commands.output import Output, OutputError, in_colour, plain, wants_colour
from rallypoint.v1 import job_service_pb2 as pb


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Full(StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_people_who_want_them(environ: dict[str, str], wanted: bool) -> None:
    assert wants_colour(Terminal(), environ) is wanted
    assert not wants_colour(StringIO(), environ)


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for stream, shown in ((Terminal(), in_colour("LOST")), (StringIO(), "LOST")):
        Output.of(stream, as_json=False).show([], lambda paint: paint("LOST"))
        assert stream.getvalue() == f"{shown}\n"


def test_only_a_screen_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert Output.of(Terminal(), as_json=False).redraws
    assert not Output.of(Terminal(), as_json=True).redraws
    assert not Output.of(StringIO(), as_json=False).redraws
    monkeypatch.setenv("TERM", "dumb")
    assert not Output.of(Terminal(), as_json=False).redraws


def test_only_states_have_colours() -> None:
    assert in_colour("node-a") == plain("node-a") == "node-a"


def test_json_has_the_protos_names_and_zeros() -> None:
    stream = StringIO()
    answers = [pb.GetJobResponse(job=pb.Job(name="jobs/a", round=3)), pb.CancelJobResponse()]
    Output(stream, as_json=True).show(answers, lambda paint: "text")
    shown = json.loads(stream.getvalue())
    assert (shown["job"]["name"], shown["job"]["round"], shown["job"]["restart_count"]) == ("jobs/a", "3", 0)
    assert shown["was_news"] is False
    assert "outcome" not in shown["job"]


def test_letters_that_the_locale_does_not_know_are_spelled_out() -> None:
    raw = BytesIO()
    stream = TextIOWrapper(raw, encoding="ascii")
    Output.of(stream, as_json=False).show([], lambda paint: "k\u00f6ln")
    assert raw.getvalue() == b"k\\xf6ln\n"


def test_a_stream_that_takes_nothing() -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        Output(Full()).show([], lambda paint: "text")


def test_without_a_stream_nothing_is_shown() -> None:
    Output.of(None, as_json=False).show([], lambda paint: "text")
