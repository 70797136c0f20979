"""The command lines of every command, and the variables that stand for flags.

An input is words with NULs between them: the command, its arguments, and NAME=VALUE for the environment. Each comes to
options, or to one sentence and the exit status of wrong usage.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from random import Random
from unittest.mock import patch

from fuzz.mutate import WORDS, mutated
from fuzz.target import Target, demand, is_a_sentence
from rallypoint import cli
from rallypoint.commands.arguments import add_reason, parser_of
from rallypoint_agent import agent_health, logs, options
from rallypoint_agent import cli as run_cli
from rallypoint_agent.options import UsageError
from rallypoint_agent.run_flags import FLAGS
from rallypoint_coordinator import cli as coordinator_cli
from rallypoint_coordinator import token_cli

_SCRIPT = "tests/fuzz/targets/flags.py"

Environ = Mapping[str, str]


def check(data: bytes) -> None:
    words = [word.decode(errors="surrogateescape") for word in data.split(b"\0")]
    command = _COMMANDS.get(words[0], _other)
    given = dict(word.partition("=")[::2] for word in words[1:] if _is_variable(word))
    argv = [word for word in words[1:] if not _is_variable(word)]
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = command(argv, given)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    demand(status in (0, 2), f"exit status {status}: {told.getvalue()}")
    if status:
        is_a_sentence(told.getvalue(), "a command that is used in a wrong way")


def _is_variable(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier() and name.isupper()


def _run(argv: Sequence[str], environ: Environ) -> int:
    try:
        with patch.object(options, "_parser", _run_parser):
            found = options.parse(list(argv), environ)
        if found.logs_specs is None and found.log_dir is None:
            with patch.object(logs, "load_logs_specs", lambda *_: None):
                run_cli._checked(found)
    except UsageError as error:
        demand("\n" not in str(error) or any("\n" in word for word in (*argv, *environ.values())), "more than a line")
        print(error, file=sys.stderr)
        return 2
    return 0


_run_parser = functools.cache(options._parser)
"""Made once: it takes longer than all the rest."""


def _coordinator(argv: Sequence[str], environ: Environ) -> int:
    with (
        patch.object(coordinator_cli, "_parser", _coordinator_parser),
        patch.object(coordinator_cli, "_run", lambda options: 0),
        patch.object(coordinator_cli, "_log_to_stderr"),
    ):
        return coordinator_cli.command(argv)


_coordinator_parser = functools.cache(coordinator_cli._parser)


def _token(argv: Sequence[str], environ: Environ) -> int:
    with patch.object(token_cli, "_write"):
        return token_cli.command(argv)


def _question(argv: Sequence[str], environ: Environ) -> int:
    parser = parser_of("drain", "", ("JOB", ""), ("NODE", ""), environ=environ)
    add_reason(parser)
    parser.parse_args(argv)
    return 0


def _other(argv: Sequence[str], environ: Environ) -> int:
    with patch.object(cli, "run", lambda command, rest: 0):
        return cli.main(argv)


def _health(argv: Sequence[str], environ: Environ) -> int:
    """The variables that the agent itself reads."""
    for variable in (agent_health.HEALTH_CHECK_PORT_VARIABLE, agent_health.HEALTHZ_PORT_VARIABLE):
        port = agent_health._port(environ, variable)
        demand(port is None or 0 <= port <= 65535, f"port {port}")
    return 0


_COMMANDS: Mapping[str, Callable[[Sequence[str], Environ], int]] = {
    "run": _run,
    "coordinator": _coordinator,
    "token": _token,
    "drain": _question,
    "health": _health,
    "rallypoint": _other,
}

_LINES = (
    f"run --coordinator head:29400 --nnodes 1:4 --nproc-per-node 2 --rdzv-id train {_SCRIPT} --lr 3",
    f"run --standalone --tee 3 --redirects 0:1,1:3 --max-restarts 3 {_SCRIPT}",
    f"run --rdzv-backend c10d --rdzv-endpoint a:1 --rdzv-conf store=agent,lease_ttl=60 --nnodes 2 {_SCRIPT}",
    f"run --master-addr 10.0.0.1 --master-port 29500 --node-rank 0 --nnodes 2 {_SCRIPT}",
    f"run --port-range 2000-2010 --scale-up after=30s --no-restart-exit-codes 3,4 --no-python {_SCRIPT}",
    f"run PET_NNODES=2 PET_RDZV_ENDPOINT=a:1 PET_RDZV_ID=b PET_STANDALONE=1 PET_TEE=3 {_SCRIPT}",
    "coordinator --listen [::1]:0 --data-dir d --retain-jobs 3 --retain-nodes 9 --retain-days 4 --snapshot-every 10",
    "coordinator --listen 0.0.0.0:1 --insecure --token-file t --exit-when-idle 60s --log-level info",
    "coordinator --tls-cert a --tls-key b --tls-client-ca c --max-calls-per-peer 10 --store memory",
    "token new --role read,operator --job train --name alice --out f",
    "drain train node-1 --reason why --coordinator a:1,b:2 --timeout 3s -o json RALLYPOINT_COORDINATOR=a:1",
    "health TORCHELASTIC_HEALTH_CHECK_PORT=8080 RALLYPOINT_HEALTHZ_PORT=0",
    "rallypoint help",
)
_SEEDS = [line.replace(" ", "\0").encode() for line in _LINES]
_FLAGS = [
    *(f"\0--{flag.name}\0".encode() for flag in FLAGS),
    *(f"\0{variable}=".encode() for flag in FLAGS for variable in flag.variables),
    *(flag.name.replace("-", "_").encode() + b"=" for flag in FLAGS),
    *(b"\0", b"\0--help\0", b"\0--\0", b"\0-"),
]
_WORDS = (*WORDS, *_FLAGS, *_FLAGS)


def generate(rng: Random) -> bytes:
    """One of the lines; its command, which all else depends on, is rarely another."""
    if rng.random() < 0.05:
        return mutated(rng, _SEEDS, WORDS)
    command, _, rest = rng.choice(_SEEDS).partition(b"\0")
    return command + b"\0" + mutated(rng, [rest], _WORDS)


TARGET = Target(check=check, generate=generate)
