from __future__ import annotations

import pytest

from rallypoint.durations import duration_ms, timeout_ms
from rallypoint.limits import DURATION_MS_MAX


@pytest.mark.parametrize("text", ["8761h", "9" * 400, "9" * 5000 + "ms"])
def test_a_duration_is_at_most_a_year(text: str) -> None:
    assert duration_ms("8760h") == DURATION_MS_MAX
    with pytest.raises(ValueError, match="a year"):
        duration_ms(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("30s", 30_000), ("10m", 600_000), ("1h", 3_600_000), ("500ms", 500), ("1.5", 1_500)],
)
def test_durations(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "s", "1d", "-1s", "1 s", "1e3", "inf", "nan", "1s2s", "\u0663s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        duration_ms(text)


@pytest.mark.parametrize("text", ["0", "0ms", "0.0h"])
def test_a_timeout_is_more_than_none(text: str) -> None:
    assert timeout_ms("1ms") == 1
    with pytest.raises(ValueError, match="more than 0"):
        timeout_ms(text)
