from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rallypoint.errors import RefusedError
from rallypoint.v1.job_service_pb2 import Worker
from rallypoint_coordinator.server import pages
from rallypoint_coordinator.server.pages import fill, next_page_token, page_size, page_start


@pytest.mark.parametrize(("requested", "given_size"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_page_size(requested: int, given_size: int) -> None:
    assert page_size(requested) == given_size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(RefusedError, match="page_size must be 0 or more, but is -3"):
        page_size(-3)


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_token_leads_to_where_it_was_made(listing: str, after: str) -> None:
    assert page_start(listing, next_page_token(listing, after)) == after


def test_no_token_is_the_first_page() -> None:
    assert page_start("jobs", "") is None


@given(st.text(min_size=1))
def test_what_is_no_token_of_the_list_is_refused(token: str) -> None:
    with pytest.raises(RefusedError):
        page_start("jobs", token)


@pytest.mark.parametrize("token", [next_page_token("jobs/a/nodes", "n"), "W" * 10_000, "W1tbW1tb" * 200])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(RefusedError, match="page_token"):
        page_start("jobs", token)


def workers(count: int, size: int = 1) -> Iterator[Worker]:
    return (Worker(rank=rank, name="n" * size) for rank in range(count))


@pytest.mark.parametrize(
    ("count", "size", "on_page", "more"), [(0, 2, 0, False), (2, 2, 2, False), (3, 2, 2, True), (9, 2, 2, True)]
)
def test_fill(count: int, size: int, on_page: int, more: bool) -> None:
    page, has_more = fill(workers(count), size)
    assert ([w.rank for w in page], has_more) == (list(range(on_page)), more)


def test_a_page_is_bounded_in_bytes_but_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES_MAX", 1000)
    page, more = fill(workers(9, size=400), 9)
    assert (len(page), more) == (2, True)
    page, more = fill(workers(9, size=5000), 9)
    assert (len(page), more) == (1, True)
