"""The exit status of a command. That of Ctrl-C, 130, is the ``rallypoint`` command's own."""

from __future__ import annotations

OK = 0
"""It was answered, whatever the answer."""
REFUSED = 1
"""The coordinator said no, or the answer could not be shown."""
USAGE = 2
"""What was given makes no sense: a flag, a name, a file with credentials."""
UNREACHABLE = 3
"""No coordinator answers, or it does not serve just now."""
NOT_ALLOWED = 4
"""Our credentials are not known to the coordinator, or not good for this."""
NOBODY_READS = 141
"""Who read our output has gone: as of a program that SIGPIPE ended."""
