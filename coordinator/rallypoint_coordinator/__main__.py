"""``python -m rallypoint_coordinator`` is ``rallypoint coordinator``."""

import sys

from rallypoint_coordinator.cli import command

sys.exit(command(sys.argv[1:]))
