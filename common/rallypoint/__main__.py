"""``python -m rallypoint`` is the ``rallypoint`` command."""

import sys

try:
    from rallypoint.cli import main

    status = main()
except KeyboardInterrupt:
    status = 130  # Ctrl-C while the command itself was being imported
sys.exit(status)
