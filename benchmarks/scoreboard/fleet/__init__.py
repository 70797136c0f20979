"""Ten thousand agents on one coordinator, beside a bare echo server of grpc.aio with as many streams.

The agents are nothing but the protocol, each on a TCP connection of its own, from an address of its own. They are one
process on one core, the server another one on the other: what the load costs is not taken for the server's.
"""

from scoreboard.fleet.rows import rows

__all__ = ["rows"]
