"""When torchrun asked for rendezvous, by its own log."""

from __future__ import annotations

import datetime

import pytest

from scoreboard.crews import ASKS, instant_of_log

LINE = "torch/distributed/elastic/agent/server/api.py:707] [default] Rendezvous'ing worker group"
LOG = (
    f"I1121 20:44:20.343000 9607 x.py:1] [default] starting\nI1121 20:44:20.344000 9607 {LINE}\nI1121 20:44:21.1 done\n"
)
ZONE = datetime.timezone(datetime.timedelta(hours=2))


def test_the_line_is_found() -> None:
    found = ASKS.search(LOG)
    assert found is not None
    assert found.group(1) == "1121 20:44:20.344000"


def test_no_other_line_is_taken_for_it() -> None:
    assert ASKS.search("I1121 20:44:20.344000 9607 x.py:1] [default] Rendezvous complete for workers.\n") is None


@pytest.mark.parametrize(
    ("told", "now", "expected"),
    [
        ("1121 20:44:20.344000", (2026, 11, 21, 20, 45), "2026-11-21T18:44:20.344+00:00"),
        ("1231 23:59:59.900000", (2027, 1, 1, 0, 0), "2026-12-31T21:59:59.900+00:00"),
    ],
)
def test_its_time_is_of_this_zone_and_of_the_latest_year_that_can_be(
    told: str, now: tuple[int, int, int, int, int], expected: str
) -> None:
    at = instant_of_log(told, datetime.datetime(*now, tzinfo=ZONE))
    assert at == pytest.approx(datetime.datetime.fromisoformat(expected).timestamp())
