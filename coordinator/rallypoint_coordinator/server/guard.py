"""The one interceptor: every call passes it, and is refused before anything of its request is read.

gRPC reads a unary request before it calls a handler. So every method is served as a stream, on which nothing is read
before the caller is admitted; on the wire there is no difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from rallypoint.errors import Reason, Refusal, RefusedError
from rallypoint.rpc_status import abort
from rallypoint_coordinator.security.access import ANONYMOUS, Access, Caller, may_touch
from rallypoint_coordinator.security.policy import POLICY, Subject
from rallypoint_coordinator.security.quotas import Calls, Failures, peer_key
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.security.tokens import Grant
from rallypoint_coordinator.server.caller import caller_name
from rallypoint_coordinator.server.options import CALLS_PER_PEER_DEFAULT
from rallypoint_coordinator.server.outlets import one_line
from rallypoint_coordinator.server.peers import peer_address

log = logging.getLogger(__name__)

ANONYMOUS_CALLS_PER_PEER = 64

LOOK_S = 1.0
"""How often the token file is looked at while nobody calls."""

CHANGED = Refusal(
    reason=Reason.CREDENTIALS_CHANGED,
    message="the credentials of this call are no longer in the coordinator's token file: call again with newer ones",
)

Context = Any
"""A grpc.aio.ServicerContext; its stubs know neither read() nor EOF."""

Handler = Any
"""A grpc.RpcMethodHandler."""


@dataclass(eq=False, slots=True)
class _OpenCall:
    """A call that was admitted. ``revoked``: it is being ended, since its credentials are good no more."""

    caller: Caller
    grant: Grant
    task: asyncio.Task[Any]
    revoked: bool = False


class Guard(grpc.aio.ServerInterceptor):
    """Decides by :mod:`.policy` and the token file.

    ``needs_certificate``: every client shows one, as TLS sees to. ``calls_per_peer``: so many calls, streams included,
    one peer may have open at once.
    """

    def __init__(
        self,
        token_file: TokenFile | None = None,
        *,
        needs_certificate: bool = False,
        calls_per_peer: int = CALLS_PER_PEER_DEFAULT,
        failures: Failures | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._token_file = token_file
        self._needs_certificate = needs_certificate
        self._access = self._current_access()
        self._calls_per_peer = calls_per_peer
        self._failures = failures or Failures()
        self._now_s = now_s
        self._calls = Calls()
        self._anonymous_calls = Calls()
        self._open: set[_OpenCall] = set()

    @property
    def calls_per_peer(self) -> int:
        return self._calls_per_peer

    @property
    def open_calls(self) -> int:
        return len(self._open)

    def _current_access(self) -> Access:
        table = self._token_file.table if self._token_file is not None else None
        return Access(table, self._needs_certificate)

    async def watch(self) -> None:
        """Look at the token file until cancelled, so that who is taken out of it does not stay for long."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.refresh()

    def refresh(self) -> None:
        """Read the token file if it has changed, and end the calls that it does not grant any more."""
        if self._token_file is None or not self._token_file.refresh():
            return
        self._access = self._current_access()
        for call in self._open:
            if not call.revoked and not self._access.still_holds(call.grant, call.caller):
                call.revoked = True
                call.task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # gRPC says UNIMPLEMENTED: what there is not needs no guard
        details: Any = handler_call_details
        return grpc.stream_stream_rpc_method_handler(
            partial(self._serve, handler, details.method, _authorization(details.invocation_metadata)),
            handler.request_deserializer,
            handler.response_serializer,
        )

    async def _serve(
        self, handler: Handler, method: str, authorization: str | None, requests: object, context: Context
    ) -> None:
        address = peer_address(context.peer())
        peer = peer_key(address)
        self.refresh()
        # Nobody else was asked for a certificate, and to look takes a tenth of what opening a stream does.
        names = _certificate_names(context.auth_context()) if self._needs_certificate else ()
        caller = Caller(authorization, names)
        admitted = self._access.admit(method, caller)
        if isinstance(admitted, Refusal):
            await self._refuse(context, admitted, method, address, peer)
        calls, most = self._calls, self._calls_per_peer
        if admitted is ANONYMOUS:
            calls, most = self._anonymous_calls, ANONYMOUS_CALLS_PER_PEER
        if not calls.enter(peer, most):
            await abort(context, _too_many_calls(most))
        try:
            await self._perform(handler, method, caller, admitted, context)
        finally:
            calls.leave(peer)

    async def _refuse(self, context: Context, refusal: Refusal, method: str, address: str, peer: str) -> NoReturn:
        """What a peer does wrong too often is not even logged."""
        now_s = self._now_s()
        if self._failures.allow(peer, now_s):
            log.warning("refused %s from %s: %s", method, address or "an unknown peer", one_line(refusal.message))
        elif refusal.reason is Reason.UNAUTHENTICATED:
            refusal = _too_many_failures(self._failures.wait_s(peer, now_s))
        await abort(context, refusal)

    async def _perform(self, handler: Handler, method: str, caller: Caller, grant: Grant, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        call = _OpenCall(caller, grant, task)
        self._open.add(call)
        caller_name.set(grant.name)
        try:
            await _call(handler, grant, method, context)
        except RefusedError as error:
            await abort(context, error.refusal)
        except NotImplementedError:
            # A method of grpcio's own that its servicer does not have: no error of ours to log.
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented here")
        except asyncio.CancelledError:
            if not call.revoked:
                raise
            task.uncancel()
            log.warning("ended %s of %s: its credentials are no longer in the token file", method, grant.name)
            await abort(context, CHANGED)
        finally:
            self._open.discard(call)


class _Readable:
    """A call's context. ``read`` raises RefusedError for bytes that are no message, which gRPC would call UNKNOWN.

    It would also log a traceback for each, and whoever reaches the port may send them.
    """

    __slots__ = ("_context", "_method")

    def __init__(self, context: Context, method: str) -> None:
        self._context = context
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        try:
            return await self._context.read()
        except DecodeError as error:
            message = f"what {self._method} was sent is no message of its kind: {one_line(str(error))}"
            raise RefusedError(Refusal(reason=Reason.INVALID_FIELD, message=message)) from error

    async def requests(self) -> AsyncIterator[Any]:
        """All of them, one after the other."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


class _Scoped(_Readable):
    """A stream's context, whose first message must be about the job that the grant is for: else RefusedError."""

    __slots__ = ("_grant", "_is_first")

    def __init__(self, context: Context, grant: Grant, method: str) -> None:
        super().__init__(context, method)
        self._grant = grant
        self._is_first = True

    async def read(self) -> Any:
        message = await super().read()
        if self._is_first and message is not grpc.aio.EOF:
            self._is_first = False
            refusal = may_touch(self._grant, self._method, message)
            if refusal is not None:
                raise RefusedError(refusal)
        return message


async def _call(handler: Handler, grant: Grant, method: str, context: Context) -> None:
    """Read a unary request, see that the grant covers its job, and have the handler answer. Raises RefusedError."""
    if handler.request_streaming:
        scoped = POLICY[method].subject is Subject.HELLO and grant.job is not None
        stream = _Scoped(context, grant, method) if scoped else _Readable(context, method)
        await _answer(handler, stream.requests(), stream)
        return
    request = await _Readable(context, method).read()
    if request is grpc.aio.EOF:
        raise RefusedError(Refusal(reason=Reason.INVALID_FIELD, message="the call ended without a request"))
    refusal = may_touch(grant, method, request)
    if refusal is not None:
        raise RefusedError(refusal)
    await _answer(handler, request, context)


async def _answer(handler: Handler, request: object, context: Context) -> None:
    """Run the servicer's method, of whichever kind it is."""
    kinds = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    method = next(kind for kind in kinds if kind is not None)
    if inspect.isasyncgenfunction(method):
        answers: AsyncIterator[object] = method(request, context)
        async with contextlib.aclosing(answers):  # type: ignore[type-var]
            async for answer in answers:
                await context.write(answer)
        return
    answer = await method(request, context)
    if not handler.response_streaming:
        await context.write(answer)


def _authorization(metadata: Any) -> str | None:
    """That header; what is sent twice is as good as none."""
    found = [value for key, value in metadata or () if key == "authorization"]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def _certificate_names(auth_context: Any) -> tuple[str, ...]:
    """The subject alternative names in the client's certificate; its common name if it has none of those."""
    for key in ("x509_subject_alternative_name", "x509_common_name"):
        if names := auth_context.get(key):
            return tuple(name.decode("utf-8", "replace") for name in names)
    return ()


def _too_many_failures(wait_s: float) -> Refusal:
    message = f"too many calls without good credentials from your address: try again in {math.ceil(wait_s)} s"
    return Refusal(reason=Reason.TOO_MANY_FAILURES, message=message, retry_after_ms=math.ceil(wait_s * 1000))


def _too_many_calls(most: int) -> Refusal:
    message = f"your address has {most} calls open at once, which is the limit: try again later"
    return Refusal(reason=Reason.LIMIT_REACHED, message=message, metadata={"limit": str(most)})
