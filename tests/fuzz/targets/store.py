"""torch's store protocol, as clients of ``store=agent`` may speak it.

An input is steps: what one of three clients sends, or that it leaves. A client is dropped with a sentence or its
commands are carried out, the table counts its bytes right, and it is the same in whatever pieces the bytes come.
"""

from __future__ import annotations

import struct
from random import Random

from fuzz.mutate import WORDS, mutated
from fuzz.script import Step, pack, unpack
from fuzz.target import Target, demand, is_a_sentence
from rallypoint_agent.torch_store.commands import LAYOUTS, Field
from rallypoint_agent.torch_store.parser import MAGIC, NotTheProtocol, Parser
from rallypoint_agent.torch_store.table import Reply, Table, Unacceptable, _cost

_CLIENTS = 3
_LEAVE = 0x80
_MOST_BYTES = 100_000
_HELLO = struct.pack("<BI", 0, MAGIC)
_KEYS = (b"", b"a", b"b", b"/default_pg/0//0", b"k" * 300)
_VALUES = (b"", b"0", b"1", b"-9223372036854775807", b"+99999999999999999999", b"v" * 300, b"\xff")


def check(data: bytes) -> None:
    whole = _play(data, piece=1 << 20)
    demand(whole == _play(data, piece=7), "it is not the same when the bytes come one after the other")


def _play(data: bytes, piece: int) -> list[tuple[int, bytes]]:
    """Who was told what; a client that was dropped was told what is wrong."""
    table = Table(_MOST_BYTES)
    parsers: dict[int, Parser | None] = {client: Parser() for client in range(_CLIENTS)}
    told: list[tuple[int, bytes]] = []
    for step in unpack(data):
        client = step.kind % _CLIENTS
        parser = parsers[client]
        if parser is None:
            continue
        if step.kind & _LEAVE:
            parsers[client] = None
            table.leave(client)
            continue
        try:
            for at in range(0, len(step.data), piece):
                parser.feed(step.data[at : at + piece])
                for command in parser.commands():
                    told += map(_written, table.apply(client, command))
        except (NotTheProtocol, Unacceptable) as error:
            is_a_sentence(str(error), "a client that is dropped")
            told.append((client, str(error).encode()))
            parsers[client] = None
            table.leave(client)
        _look(table, {client for client, parser in parsers.items() if parser is not None})
    return told


def _written(reply: Reply) -> tuple[int, bytes]:
    return reply.client, b"".join(reply.parts)


def _look(table: Table, clients: set[int]) -> None:
    used = sum(_cost(key, value) for key, value in table._values.items())
    used += sum(_cost(key, value) for key, queue in table._queues.items() for value in queue)
    demand(table.used_bytes == used <= _MOST_BYTES, f"{table.used_bytes} bytes are counted, {used} are used")
    demand(table._missing.keys() <= clients, "somebody who has left waits")
    waiting = {(key, client) for client, keys in table._missing.items() for key in keys}
    noted = {(key, client) for key, waiters in table._waiters.items() for client in waiters}
    demand(waiting == noted, f"waiting are {waiting}, noted {noted}")


def generate(rng: Random) -> bytes:
    steps = [Step(client, _HELLO) for client in range(_CLIENTS) if rng.random() < 0.95]
    for _ in range(rng.choice((1, 3, 6, 12))):
        kind = rng.randrange(_CLIENTS) | (_LEAVE if rng.random() < 0.03 else 0)
        data = b"".join(_command(rng) for _ in range(rng.choice((1, 1, 3))))
        steps.append(Step(kind, mutated(rng, [data], WORDS)[:65535] if rng.random() < 0.25 else data))
    return pack(steps)


def _command(rng: Random) -> bytes:
    opcode = rng.choice(sorted(LAYOUTS))
    _, fields = LAYOUTS[opcode]
    return bytes([opcode]) + b"".join(_field(rng, field) for field in fields)


def _field(rng: Random, field: Field) -> bytes:
    if field is Field.KEY:
        return _text(rng.choice(_KEYS))
    if field is Field.VALUE:
        return _text(rng.choice(_VALUES))
    if field is Field.NUMBER:
        return struct.pack("<q", rng.choice((0, 1, -1, 2, 3, 2**63 - 1, -(2**63))))
    if field is Field.NONCE:
        return rng.randbytes(4)
    count = rng.choice((0, 1, 2, 3))
    items = (_text(rng.choice(_KEYS)) for _ in range(count))
    if field is Field.ITEMS:
        items = (item + _text(rng.choice(_VALUES)) for item in items)
    return struct.pack("<Q", count) + b"".join(items)


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


TARGET = Target(check=check, generate=generate)
