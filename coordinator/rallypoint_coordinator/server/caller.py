"""By whose credentials the call that is being handled was admitted."""

from __future__ import annotations

from contextvars import ContextVar

caller_name: ContextVar[str] = ContextVar("caller_name", default="")
"""The name that the token file gives them; empty where there is no access control."""
