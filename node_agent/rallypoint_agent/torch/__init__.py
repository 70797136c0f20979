"""torchrun on our coordinator: ``torchrun --rdzv-backend=rallypoint --rdzv-endpoint=HOST:PORT ...``.

torchrun's own agent runs the workers; rendezvous and the decision to re-form are the coordinator's. This is the one
place of the package that imports torch, and only once torchrun asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BACKEND = "rallypoint"
"""The name for ``--rdzv-backend``, and of the entry point in the group ``torchrun.handlers``."""


def handler() -> Callable[[Any], Any]:
    """What torch's registry of out-of-tree backends calls at import: the maker of a RendezvousHandler."""

    def create(params: Any) -> Any:
        from rallypoint_agent.torch.handler import CoordinatorRendezvousHandler

        return CoordinatorRendezvousHandler(params)

    return create
