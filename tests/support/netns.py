"""Hosts of a network, each a network namespace, around a router that can lose what it is to pass on.

The router is the namespace that the whole test process is in: see :func:`command_inside`. Nothing here touches the
machine's own network, and all of it ends with the processes in it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_INSIDE = "RALLYPOINT_TEST_NAMESPACE"
_WAYS_IN = (("unshare", "--net", "--mount"), ("unshare", "--map-root-user", "--net", "--mount"))
_TESTS = str(Path(__file__).parents[1])

Way = tuple[str, str]
"""From this host to that one."""


def is_inside() -> bool:
    """Whether this process is in namespaces of its own, and may have a :class:`Network`."""
    return _INSIDE in os.environ


def command_inside(command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What runs the command in namespaces of its own: argv and environment. Ask :func:`why_impossible` before."""
    return [*_way_in()[0], *command], {**os.environ, _INSIDE: "1"}


def why_impossible() -> str:
    """Why there can be no network namespaces here; empty if there can."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else _way_in()[1]


@functools.cache
def _way_in() -> tuple[tuple[str, ...], str]:
    """The first way that works, and why the last one does not if none does."""
    reason = ""
    for way in _WAYS_IN:
        done = subprocess.run(
            [*way, sys.executable, "-m", "support.netns"],
            env={**os.environ, _INSIDE: "1", "PYTHONPATH": _TESTS},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            return way, ""
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return _WAYS_IN[-1], reason


class Network:
    """One link from each host to the router. Only in a process that :func:`is_inside`, once."""

    def __init__(self, hosts: Sequence[str]) -> None:
        if not is_inside():
            raise RuntimeError("this would change the machine's own network: start the process with command_inside")
        self._numbers = {host: number for number, host in enumerate(hosts, start=1)}
        _run("mount", "-t", "tmpfs", "tmpfs", "/run")
        _ip("link", "set", "lo", "up")
        for host in hosts:
            self._add(host)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _add(self, host: str) -> None:
        number = self._numbers[host]
        _ip("netns", "add", host)
        _ip("link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
        _ip("address", "add", f"10.77.{number}.1/24", "dev", f"to{number}")
        _ip("link", "set", f"to{number}", "up")
        _ip("-n", host, "link", "set", "lo", "up")
        _ip("-n", host, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", host, "link", "set", "eth0", "up")
        _ip("-n", host, "route", "add", "default", "via", f"10.77.{number}.1")

    def address(self, host: str) -> str:
        return f"10.77.{self._numbers[host]}.2"

    def enter(self, host: str) -> list[str]:
        """What to put before a command so that it runs on that host; its pid is that of the command."""
        return ["nsenter", f"--net=/run/netns/{host}", "--"]

    @contextmanager
    def silence(self, *ways: Way, verdict: str = "blackhole") -> Iterator[None]:
        """For so long the router loses what is sent these ways.

        It says nothing with the verdict ``blackhole``; with ``unreachable`` it sends the ICMP error.
        """
        rules = [("from", self.address(source), "to", self.address(target), verdict) for source, target in ways]
        for rule in rules:
            _ip("rule", "add", *rule)
        try:
            yield
        finally:
            for rule in rules:
                _ip("rule", "delete", *rule)

    @contextmanager
    def unplugged(self, host: str) -> Iterator[None]:
        """For so long the host's link is down: its own kernel knows that there is no way out."""
        _ip("-n", host, "link", "set", "eth0", "down")
        try:
            yield
        finally:
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "route", "add", "default", "via", f"10.77.{self._numbers[host]}.1")


def both_ways(one: str, other: str) -> tuple[Way, Way]:
    return (one, other), (other, one)


def _ip(*args: str) -> None:
    _run("ip", *args)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _try_out() -> None:
    network = Network(["here", "there"])
    with network.silence(("here", "there")), network.unplugged("there"):
        _run(*network.enter("here"), "true")


if __name__ == "__main__":
    _try_out()
