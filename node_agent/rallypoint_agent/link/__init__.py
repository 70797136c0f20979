"""The link: the agent's stream to the coordinator, in a thread of its own. It carries and decides nothing.

Importing it is cheap: gRPC is imported by the link's thread when that starts.
"""

from rallypoint_agent.link.config import LinkConfig
from rallypoint_agent.link.link import Link

__all__ = ["Link", "LinkConfig"]
