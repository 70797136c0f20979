"""Pages of a list: how many items, and from where."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from rallypoint.errors import Reason, Refusal, RefusedError

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
PAGE_BYTES_MAX = 2 << 20
"""A page ends early rather than grow beyond what a client accepts, which is 4 MiB unless it says otherwise."""

TOKEN_BYTES_MAX = 2048

M = TypeVar("M", bound=Message)


def page_size(requested: int) -> int:
    """The size of a page: 0 means the default, too much means the most. Raises RefusedError if negative."""
    if requested < 0:
        raise RefusedError(_invalid("page_size", f"page_size must be 0 or more, but is {requested}"))
    return min(requested or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def fill(items: Iterable[M], size: int) -> tuple[list[M], bool]:
    """The first page of the items, and whether there are more. Takes one item more than it gives."""
    page: list[M] = []
    page_bytes = 0
    for item in items:
        page_bytes += item.ByteSize()
        if len(page) == size or (page and page_bytes > PAGE_BYTES_MAX):
            return page, True
        page.append(item)
    return page, False


def next_page_token(listing: str, after: str) -> str:
    """What a client sends to have the items that follow ``after``. ``listing`` is what is listed: ``jobs/a/nodes``."""
    return base64.urlsafe_b64encode(json.dumps([listing, after]).encode()).decode()


def page_start(listing: str, token: str) -> str | None:
    """The item after which the page begins; None for the first page. Raises RefusedError if it is not our token."""
    if not token:
        return None
    try:
        parts = json.loads(base64.urlsafe_b64decode(token)) if len(token) <= TOKEN_BYTES_MAX else None
    except (ValueError, RecursionError):
        parts = None
    match parts:
        case [str(of), str(after)] if of == listing:
            return after
    raise RefusedError(_invalid("page_token", f"page_token must be a next_page_token of {listing}"))


def _invalid(field: str, message: str) -> Refusal:
    return Refusal(reason=Reason.INVALID_FIELD, message=message, field=field, metadata={"field": field})
