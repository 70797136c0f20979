"""The keeper's program, run by path: ``python -S -I child.py SOCKET AGENT_PID [HELD_FD...]``."""

import os
import sys


def name_package() -> None:
    """Let this folder's modules be imported by their full names.

    -S and -I leave our packages off sys.path, and their __init__ files would import too much.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    for name in ("rallypoint_agent", "rallypoint_agent.keeper"):
        package = type(sys)(name)
        package.__path__ = [folder]
        sys.modules[name] = package


if __name__ == "__main__":
    name_package()
    from rallypoint_agent.keeper.supervisor import main

    main(channel_fd=int(sys.argv[1]), agent_pid=int(sys.argv[2]), held_fds=tuple(map(int, sys.argv[3:])))
