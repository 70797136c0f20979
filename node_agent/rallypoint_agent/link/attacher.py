"""Attaching, again and again. Runs in the link's thread, and is the only part that imports gRPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from rallypoint.errors import Reason, Refusal
from rallypoint.model import NO_VERSION, Endpoint, Hello
from rallypoint.security.client import CredentialsError, call_metadata, open_aio_channel
from rallypoint.v1.agent_service_pb2_grpc import AgentServiceStub
from rallypoint_agent import grpc_setup
from rallypoint_agent.core.events import AttachRefused, ConnectionsRefused, Detached
from rallypoint_agent.flag_names import in_flags
from rallypoint_agent.link import delays
from rallypoint_agent.link.clock import boot_ms
from rallypoint_agent.link.config import LinkConfig
from rallypoint_agent.link.mailbox import Mailbox
from rallypoint_agent.link.stream import Broken, Dropped, End, Left, Refused, Stale, Stream
from rallypoint_agent.link.wishes import Wishes

_STEADY_S = 5.0
"""A stream that lasted so long was a good one: after it the backoff starts from the beginning."""

logger = logging.getLogger(__name__)


def keep_attached(config: LinkConfig, wishes: Wishes, mailbox: Mailbox) -> bool:
    """Keep one stream up until the agent leaves or the link is closed. Blocks so long.

    Returns whether the coordinator acknowledged a Goodbye.
    """
    return asyncio.run(_Attacher(config, wishes, mailbox).run())


class _Attacher:
    def __init__(self, config: LinkConfig, wishes: Wishes, mailbox: Mailbox) -> None:
        self._config = config
        self._wishes = wishes
        self._mailbox = mailbox
        self._backoff = delays.between_attaches(config)
        self._heartbeat_interval_ms = config.job_spec.heartbeat_interval_ms
        self._welcome_timeout_ms = config.welcome_timeout_ms
        self._stream: Stream | None = None
        self._wakeup = asyncio.Event()
        self._turn = 0
        self._attach_seq = 0
        self._highest_version = NO_VERSION
        self._explained = ""
        self._attached_s: float | None = None
        """When the last stream that was welcomed ended."""

    async def run(self) -> bool:
        loop = asyncio.get_running_loop()
        self._wishes.listen(partial(loop.call_soon_threadsafe, self._wish_changed))
        end: End = Dropped()
        try:
            while not self._is_over():
                end = await self._attach()
                await self._after(end)
        finally:
            self._wishes.listen(None)
        return isinstance(end, Left)

    def _is_over(self) -> bool:
        return self._wishes.closing or self._wishes.leave is not None

    def _wish_changed(self) -> None:
        self._wakeup.set()
        if self._stream is not None:
            self._stream.wish_changed()

    # Attaching once.

    async def _attach(self) -> End:
        # A Hello renews the lease as well.
        await self._until(lambda: self._wishes.is_alive(boot_ms()))
        if self._is_over():
            return Dropped()
        self._wishes.take_reattach()
        endpoint = self._endpoint()
        try:
            end = await self._run_stream(endpoint)
        except CredentialsError as error:
            end = Broken(str(error))
        except Exception as error:
            logger.exception("the stream to the coordinator at %s broke", _name(endpoint))
            end = Broken(repr(error))
        return end

    async def _run_stream(self, endpoint: Endpoint) -> End:
        options, security = grpc_setup.channel_options(use_proxy=self._config.use_proxy), self._config.security
        started_s = _now_s()
        async with open_aio_channel(grpc_setup.target(endpoint), security, options) as channel:
            call = AgentServiceStub(channel).Attach(metadata=call_metadata(security))
            stream = Stream(call, self._hello, self._wishes, self._mailbox)
            self._stream = stream
            try:
                return await stream.run(self._welcome_timeout_ms / 1000)
            finally:
                self._stream = None
                self._learn(stream, lasted_s=_now_s() - started_s)

    def _hello(self) -> Hello:
        config, identity = self._config, self._wishes.identity
        self._attach_seq += 1
        return Hello(
            job=config.job,
            node=config.node,
            incarnation=config.incarnation,
            attach_seq=self._attach_seq,
            job_spec=config.job_spec,
            node_spec=config.node_spec,
            observed=self._wishes.news.observed,
            capabilities=config.capabilities,
            agent_version=config.agent_version,
            cluster_id=identity.cluster_id,
            job_uid=identity.job_uid,
            lease_id=identity.lease_id,
            highest_version=self._highest_version,
        )

    def _learn(self, stream: Stream, lasted_s: float) -> None:
        """What remains of a stream that ended."""
        self._highest_version = max(self._highest_version, stream.highest_version)
        if stream.welcome is None:
            if stream.has_said_hello and lasted_s >= self._welcome_timeout_ms / 1000:
                self._welcome_timeout_ms = delays.longer_welcome_timeout_ms(self._config, self._welcome_timeout_ms)
            return
        self._welcome_timeout_ms = self._config.welcome_timeout_ms
        self._attached_s = _now_s()
        self._explained = ""
        self._heartbeat_interval_ms = stream.welcome.heartbeat_interval_ms
        self._mailbox.put(Detached())
        if lasted_s >= _STEADY_S:
            self._backoff.reset()

    # Between two streams.

    async def _after(self, end: End) -> None:
        match end:
            case Left():
                pass
            case Dropped():
                self._backoff.reset()
            case Stale():
                await self._until(lambda: False)
            case Refused(refusal) if self._may_be_rotating(refusal):
                self._explain(f"not attached to the coordinator: {refusal.message}")
                self._turn += 1
                await self._until(lambda: False, self._backoff.next_s())
            case Refused(refusal, hello_sent_ms):
                self._mailbox.put(AttachRefused(in_flags(refusal), hello_sent_ms))
                self._turn += 1
                at_least_s = (refusal.retry_ms or 0) / 1000
                await self._until(lambda: False, None if refusal.final else self._backoff.next_s(at_least_s))
            case Broken(why):
                endpoint = self._endpoint()
                self._turn += 1
                # Where nobody is at all, the agent's core says so.
                if not await self._knock():
                    self._explain_broken(endpoint, why)
                    await self._until(lambda: False, self._backoff.next_s())

    def _may_be_rotating(self, refusal: Refusal) -> bool:
        """For as long as its lease may last, an agent that was admitted before is not ended for its credentials.

        Tokens are rotated on two machines, and not in the same instant.
        """
        if refusal.reason is not Reason.UNAUTHENTICATED or self._attached_s is None:
            return False
        return _now_s() - self._attached_s < self._config.job_spec.lease_ttl_ms / 1000

    async def _until(self, ready: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait until it is ready, or time is over, or the main thread wishes something sooner."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (ready() or self._wishes.wants_reattach or self._is_over()):
                    self._wakeup.clear()
                    await self._wakeup.wait()
        except TimeoutError:
            return

    async def _knock(self) -> bool:
        """As long as nobody is there at all, ask again and again: a refused connect costs nobody anything.

        So a coordinator that comes back is found soon, however long it was gone. Whether it may be back: False if it
        did not seem to be gone.
        """
        knocks = delays.between_knocks(self._config, self._heartbeat_interval_ms)
        was_gone = False
        while await self._nobody_is_there():
            was_gone = True
            self._backoff.reset()
            await self._until(lambda: False, knocks.next_s())
        return was_gone

    async def _nobody_is_there(self) -> bool:
        """Whether every endpoint refuses, and the main thread wishes nothing sooner. A refusal is told."""
        if self._config.use_proxy:
            return False
        began_ms = boot_ms()
        timeout_s = self._config.probe_timeout_ms / 1000
        # Most agents are attached at once, and need neither this nor advice.
        from rallypoint_agent.link.probe import all_refused

        probe = asyncio.create_task(all_refused(self._config.endpoints, timeout_s))
        probe.add_done_callback(lambda _: self._wakeup.set())
        try:
            await self._until(probe.done)
            if not (probe.done() and probe.result()):
                return False
            self._mailbox.put(ConnectionsRefused(began_ms))
        except Exception:
            logger.exception("the probe failed; taken for silence")
            return False
        finally:
            probe.cancel()
        return not (self._wishes.wants_reattach or self._is_over())

    def _endpoint(self) -> Endpoint:
        return self._config.endpoints[self._turn % len(self._config.endpoints)]

    def _explain_broken(self, endpoint: Endpoint, why: str) -> None:
        from rallypoint.security.advice import advice_on

        advice = advice_on(why, self._config.security, has_worked=self._attached_s is not None)
        self._explain(f"not attached to the coordinator at {_name(endpoint)}: {advice or why}")

    def _explain(self, message: str) -> None:
        """Log why there is no stream, once for each reason in a row."""
        if message != self._explained:
            self._explained = message
            logger.warning("%s", message)


def _name(endpoint: Endpoint) -> str:
    return grpc_setup.target(endpoint)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
