"""The coordinator's process: signals, limits, the line that says where it listens, the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum, auto

import grpc

from rallypoint.limits import DAY_MS
from rallypoint.security.server_tls import ServerCertificate, TlsFilesError
from rallypoint.values import dataclass
from rallypoint_coordinator.core.directory import Retention
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.security.tokens import TokenFileError
from rallypoint_coordinator.server.driver import DriverOptions
from rallypoint_coordinator.server.event_loop import ServerLoop
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.listen import ListenError
from rallypoint_coordinator.server.options import ServerOptions
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.server.watch_log import log_bounds
from rallypoint_coordinator.server.watches import WatchOptions
from rallypoint_coordinator.store.journal import Journal, JournalError
from rallypoint_coordinator.store.memory import MemoryJournal

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FAILED = 1


class Ending(IntEnum):
    """Why it ends; of several reasons the first counts."""

    TOLD = auto()
    OVER = auto()
    IDLE = auto()


@dataclass(frozen=True, slots=True)
class Store:
    """Where decisions are kept, what to say of it, and whom to tell where the coordinator listens."""

    journal: Journal
    news: str
    announce: Callable[[str], None] = lambda address: None


@dataclass(frozen=True, slots=True)
class Door:
    """Who may do what, and what TLS shows; without ``credentials`` it is plain text."""

    guard: Guard
    credentials: grpc.ServerCredentials | None


def run(options: ServerOptions) -> int:
    """Serve until a signal, or the end of standard input if embedded. Returns the exit status."""
    raise_open_files_limit()
    if not options.embedded:  # an agent waits for one that is, and its job ends with it
        from rallypoint_coordinator.server.allocator import keep_one_heap

        keep_one_heap()
    try:
        # First: what cannot be used should leave no trace in the data directory.
        door = door_of(options)
        with opened(options) as store, asyncio.Runner(loop_factory=ServerLoop) as runner:
            return runner.run(serve(options, store, door))
    except (JournalError, TlsFilesError, TokenFileError) as error:
        return failed(error)


@contextlib.contextmanager
def opened(options: ServerOptions) -> Iterator[Store]:
    """The store, ours alone for as long as the context lasts; serving closes the journal. Raises JournalError."""
    if options.data_dir is None:
        yield Store(MemoryJournal(), "decisions are kept in memory and end with this process: --data-dir keeps them")
        return
    # A coordinator without a disk, which an agent waits for, does without SQLite.
    from rallypoint_coordinator.store.directory import DataDirectory
    from rallypoint_coordinator.store.sqlite import SqliteJournal

    directory = DataDirectory.open(options.data_dir)
    try:
        journal = SqliteJournal(directory.journal, directory.verify)
        yield Store(journal, f"decisions are kept in {journal.where}", directory.announce)
    finally:
        directory.close()


async def serve(options: ServerOptions, store: Store, door: Door) -> int:
    server = Server(store.journal, driver_options(options), guard=door.guard, credentials=door.credentials)
    stop = asyncio.Event()
    try:
        bound = await server.start(options.listen)
        store.announce(str(bound))
        if not options.embedded:
            log.info(store.news)
        _stop_on_signals(stop.set, embedded=options.embedded)
        if options.embedded:
            _stop_on_stdin_eof(stop.set)
        # Nobody misses the word of one whose agent is gone: it is about to end.
        _print(f"rallypoint coordinator listening on {bound}", logging.INFO if options.embedded else logging.WARNING)
        _settle_garbage_collector(embedded=options.embedded)
        if await _until(stop, server) is Ending.IDLE:
            log.info("nobody has been here for %g s: ending, as --exit-when-idle says", options.exit_when_idle_s)
    except (ListenError, JournalError) as error:
        return failed(error)
    finally:
        await server.stop()
    log.info("stopped")
    return EXIT_OK


def driver_options(options: ServerOptions) -> DriverOptions:
    retention = Retention(
        lives_max=options.retain_jobs,
        nodes_max=options.retain_nodes,
        age_max_ms=options.retain_days * DAY_MS,
    )
    return DriverOptions(
        snapshot_records=options.snapshot_every,
        retention=retention,
        idle_after_s=options.exit_when_idle_s,
        watches=WatchOptions(log=log_bounds(options.keep_events_mib << 20)),
    )


def door_of(options: ServerOptions) -> Door:
    """Raises TokenFileError and TlsFilesError."""
    token_file = TokenFile(options.token_file) if options.token_file else None
    needs_certificate = options.tls is not None and options.tls.client_ca is not None
    guard = Guard(token_file, needs_certificate=needs_certificate, calls_per_peer=options.calls_per_peer)
    return Door(guard, ServerCertificate(options.tls).credentials() if options.tls else None)


def failed(error: Exception) -> int:
    """Say what is wrong on one line. Returns the exit status."""
    print(f"rallypoint coordinator: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return EXIT_FAILED


def _print(line: str, level: int) -> None:
    """To standard output if it takes it: a full disk or a reader that has gone is no reason not to serve.

    It is said at this level of the log then.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        log.log(level, "%s (standard output cannot be written: %s)", line, error.strerror)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # else the interpreter tries again at its end, and fails by that
        os.close(nowhere)


async def _until(stop: asyncio.Event, server: Server) -> Ending:
    """Wait for a reason to stop. Raises what ended the server if that comes first."""
    ways = {
        asyncio.create_task(stop.wait()): Ending.TOLD,
        asyncio.create_task(server.wait_idle()): Ending.IDLE,
        asyncio.create_task(server.wait()): Ending.OVER,
    }
    done, waiting = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()
    return min(ways[task] for task in done)


def _stop_on_signals(stop: Callable[[], None], *, embedded: bool) -> None:
    """The first SIGTERM or SIGINT stops, a second one exits at once.

    An embedded coordinator shares its agent's terminal: a Ctrl-C is for the agent, which still needs it to say goodbye.
    """
    loop = asyncio.get_running_loop()
    stopping = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        log.info("%s: shutting down", number.name)
        stop()

    loop.add_signal_handler(signal.SIGTERM, on_signal, signal.SIGTERM)
    if embedded:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    else:
        loop.add_signal_handler(signal.SIGINT, on_signal, signal.SIGINT)


def _stop_on_stdin_eof(stop: Callable[[], None]) -> None:
    """A thread, since standard input may be a file, which the event loop cannot wait for."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _settle_garbage_collector(*, embedded: bool) -> None:
    """Keep full collections rare: with ten thousand streams one would stop the world for 0.2 s.

    Nearly all that is made is freed by its count or stays. So young objects are looked through once, which frees the
    cycles that gRPC leaves of each call, and what stays is left alone: while ten thousand agents join, a fifth of the
    time went there. Nor sooner: what waits to be written to ten thousand agents is over ten thousand objects, and gone
    before it is looked through. The command has switched it off for the start. For an embedded coordinator an agent
    waits, so its start leaves the little that could be collected.
    """
    if not embedded:
        gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 1_000, 1_000)


def raise_open_files_limit() -> None:
    """Every agent is a connection: allow as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
