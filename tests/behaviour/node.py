"""One node of a job, as a program: ``python -m behaviour.node CONFIG TASK ARGS``, all three JSON.

It launches the task of that name from Python and writes how that ended as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from behaviour import tasks
from rallypoint_agent import ChildFailedError, LaunchConfig, LaunchError, SignalException, elastic_launch


def outcome(config: dict[str, Any], task: str, args: list[Any]) -> dict[str, Any]:
    try:
        return {"returned": elastic_launch(LaunchConfig(**config), getattr(tasks, task))(*args)}
    except ChildFailedError as error:
        return {"failed": {rank: failure.message for rank, failure in error.failures.items()}, "first": first(error)}
    except SignalException as error:
        return {"signal": error.sigval.name}
    except LaunchError as error:
        return {"error": error.kind, "message": str(error)}


def first(error: ChildFailedError) -> int:
    rank, _ = error.get_first_failure()
    return rank


if __name__ == "__main__":
    print(json.dumps(outcome(*map(json.loads, sys.argv[1:]))))
