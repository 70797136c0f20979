from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from rallypoint_agent import events
from rallypoint_agent.background import Background
from rallypoint_agent.entry_points import EntryPointError
from rallypoint_agent.events import (
    Event,
    EventSource,
    NodeState,
    RdzvEvent,
    get_logging_handler,
    handled_in_background,
    record,
    record_rdzv_event,
)
from support.entry_points import plug_in

EVENT = Event(
    "torchelastic.worker.status.START", EventSource.WORKER, 1_700_000_000_123, {"state": "START", "rank": None}
)
RDZV_EVENT = RdzvEvent("next", "job7", "why", "host", 7, NodeState.RUNNING, rank=3)


class Noting(logging.Handler):
    """Keeps what it is given, and by which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[str, threading.Thread]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.got.append((record.getMessage(), threading.current_thread()))


@pytest.fixture(autouse=True)
def _fresh_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_handlers", {})


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = {"mine": "Noting", "bad": "bad", "broken": "broken", "dynamic_rendezvous": "Noting"}
    plug_in(tmp_path, monkeypatch, events.ENTRY_POINTS, {name: f"plugged:{what}" for name, what in names.items()})
    monkeypatch.setitem(sys.modules, "plugged", SimpleNamespace(Noting=Noting, bad=int))
    yield
    for name in names:
        logging.getLogger(f"torchelastic-events-{name}").handlers = []


def noting(destination: str) -> Noting:
    handler = get_logging_handler(destination)
    assert isinstance(handler, Noting)
    return handler


@pytest.mark.parametrize("event", [EVENT, RDZV_EVENT])
def test_it_is_one_line_of_json_and_comes_back_from_it(event: Event | RdzvEvent) -> None:
    text = event.serialize()
    assert "\n" not in text
    assert str(event) == text
    assert type(event).deserialize(text) == event
    assert type(event).deserialize(event) is event  # type: ignore[arg-type]


def test_its_fields_are_torchs() -> None:
    assert json.loads(EVENT.serialize()) == {
        "name": "torchelastic.worker.status.START",
        "source": "WORKER",
        "timestamp": 1_700_000_000_123,
        "metadata": {"state": "START", "rank": None},
    }


def test_null_is_nowhere(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    record(EVENT)
    record_rdzv_event(RDZV_EVENT)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_what_goes_nowhere_is_not_made_into_a_text() -> None:
    unspeakable = Event("an event", EventSource.AGENT, metadata={"state": object()})  # type: ignore[dict-item]
    record(unspeakable)
    with pytest.raises(TypeError, match="not JSON serializable"):
        record(unspeakable, "console")


def test_the_console_is_standard_error(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    record(EVENT, "console")
    assert capsys.readouterr().err == EVENT.serialize() + "\n"
    assert caplog.text == "", "an event is handled once"


@pytest.mark.usefixtures("plugged")
def test_ones_own_handler_is_an_entry_point() -> None:
    record(EVENT, "mine")
    record(EVENT, "mine")
    assert [message for message, _ in noting("mine").got] == [EVENT.serialize()] * 2


@pytest.mark.usefixtures("plugged")
def test_the_rendezvous_has_a_destination_of_its_own() -> None:
    record_rdzv_event(RDZV_EVENT)
    assert [message for message, _ in noting("dynamic_rendezvous").got] == [RDZV_EVENT.serialize()]


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("name", "told"), [("nobodys", "there are bad, "), ("bad", "makes no logging.Handler but 0"), ("broken", "loaded")]
)
def test_what_is_no_handler_is_told(name: str, told: str) -> None:
    with pytest.raises(EntryPointError, match=told):
        get_logging_handler(name)


@pytest.mark.usefixtures("plugged")
def test_in_the_background_another_thread_handles_it() -> None:
    background = Background("events")
    handler = noting("mine")
    with handled_in_background("mine", background):
        record(EVENT, "mine")
        background.close()
    record(EVENT, "mine")
    assert [thread is threading.current_thread() for _, thread in handler.got] == [False, True]


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(("level", "count"), [("WARNING", 0), ("debug", 1), ("nonsense", 1)])
def test_loglevel_silences_them(monkeypatch: pytest.MonkeyPatch, level: str, count: int) -> None:
    monkeypatch.setenv("LOGLEVEL", level)
    record(EVENT, "mine")
    assert len(noting("mine").got) == count
