"""TLS between gRPC's own two ends: what is refused, what is said of it, and what a rotation does."""

from __future__ import annotations

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from rallypoint.errors import Reason
from rallypoint.security.advice import advice_on
from rallypoint.security.client import NO_SECURITY, ClientSecurity, CredentialsError, open_aio_channel
from rallypoint.security.server_tls import ServerCertificate, ServerTls
from rallypoint.v1.job_service_pb2 import ListJobsRequest, RestartJobRequest
from rallypoint.v1.job_service_pb2_grpc import JobServiceStub
from rallypoint_coordinator.security.policy import Role
from rallypoint_coordinator.security.token_file import TokenFile
from rallypoint_coordinator.server.guard import Guard
from rallypoint_coordinator.server.options import Address
from rallypoint_coordinator.server.server import Server
from rallypoint_coordinator.store.memory import MemoryJournal
from support.certificates import Authority, Pair
from support.tokens import certificate_line, grant, write_lines
from support.wire_client import TIMEOUT_S, refusal_of, running_coordinator


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def other_ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other", "other")


@asynccontextmanager
async def serving(tls: ServerTls | None, token_file: Path | None = None) -> AsyncIterator[Address]:
    guard = Guard(
        TokenFile(token_file) if token_file else None, needs_certificate=tls is not None and tls.client_ca is not None
    )
    credentials = ServerCertificate(tls).credentials() if tls else None
    async with running_coordinator(server=Server(MemoryJournal(), guard=guard, credentials=credentials)) as running:
        yield running.address


async def ask(address: Address, security: ClientSecurity) -> None:
    """A new connection, and one call on it. Raises what the call does."""
    async with open_aio_channel(str(address), security) as channel:
        await JobServiceStub(channel).ListJobs(ListJobsRequest(), timeout=TIMEOUT_S)


async def advice_of(address: Address, security: ClientSecurity) -> str:
    """What is said to whoever cannot connect."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(address, security)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return advice_on(caught.value.details() or "", security)


def trusting(ca: Authority, pair: Pair | None = None) -> ClientSecurity:
    return ClientSecurity("", str(ca.cert), str(pair.cert) if pair else "", str(pair.key) if pair else "")


async def test_tls_serves_and_every_mistake_has_its_advice(ca: Authority, other_ca: Authority) -> None:
    async with serving(ca.server_tls()) as address:
        await ask(address, trusting(ca))
        assert "--tls-ca is missing" in await advice_of(address, NO_SECURITY)
        assert "not signed by an authority of --tls-ca" in await advice_of(address, trusting(other_ca))
    expired = ca.issue(ends_in=-timedelta(hours=1))
    async with serving(ServerTls(expired.cert, expired.key)) as address:
        assert "has expired" in await advice_of(address, trusting(ca))
    elsewhere = ca.issue("elsewhere", "elsewhere.example.org")
    async with serving(ServerTls(elsewhere.cert, elsewhere.key)) as address:
        assert "not for the name" in await advice_of(address, trusting(ca))
    async with serving(None) as address:
        assert "does not speak TLS" in await advice_of(address, trusting(ca))


async def test_mutual_tls_admits_certificates_of_its_authority_alone(ca: Authority, other_ca: Authority) -> None:
    async with serving(ca.server_tls(asks_clients=True)) as address:
        await ask(address, trusting(ca, ca.issue("agent")))
        assert "--tls-cert and --tls-key are missing" in await advice_of(address, trusting(ca))
        assert "--tls-client-ca" in await advice_of(address, trusting(ca, other_ca.issue("agent")))
        expired = ca.issue("agent", ends_in=-timedelta(hours=1))
        assert "--tls-client-ca" in await advice_of(address, trusting(ca, expired))


async def test_a_name_in_a_certificate_is_a_role(ca: Authority, tmp_path: Path) -> None:
    tokens = write_lines(
        tmp_path / "tokens",
        [
            certificate_line(grant("alice", Role.READ), "alice.example.org"),
            certificate_line(grant("bob", Role.READ), "bob"),
        ],
    )
    async with serving(ca.server_tls(asks_clients=True), tokens) as address:
        await ask(address, trusting(ca, ca.issue("whoever", "alice.example.org")))
        # The common name counts where there is no other.
        await ask(address, trusting(ca, ca.issue("bob", has_names=False)))
        for certificate in (ca.issue("carol"), ca.issue("bob", "carol.example.org")):
            async with open_aio_channel(str(address), trusting(ca, certificate)) as channel:
                jobs: Any = JobServiceStub(channel)
                refusal = await refusal_of(jobs.ListJobs(ListJobsRequest(), timeout=TIMEOUT_S))
                assert refusal.reason is Reason.UNAUTHENTICATED
                assert certificate.cert.name
        async with open_aio_channel(str(address), trusting(ca, ca.issue("bob", has_names=False))) as channel:
            refusal = await refusal_of(JobServiceStub(channel).RestartJob(RestartJobRequest(name="jobs/a")))
            assert refusal.reason is Reason.PERMISSION_DENIED


async def test_a_new_certificate_needs_no_restart(ca: Authority, other_ca: Authority) -> None:
    tls = ca.server_tls()
    mine = Pair(tls.cert, tls.key)
    async with serving(tls) as address:
        async with open_aio_channel(str(address), trusting(ca)) as early:
            await JobServiceStub(early).ListJobs(ListJobsRequest(), timeout=TIMEOUT_S)
            mine.replace_by(other_ca.issue())
            await ask(address, trusting(other_ca))
            assert "not signed" in await advice_of(address, trusting(ca))
            # A connection that stands is not asked again.
            await JobServiceStub(early).ListJobs(ListJobsRequest(), timeout=TIMEOUT_S)
        tls.key.write_text("half a rotation")
        await ask(address, trusting(other_ca))
        mine.replace_by(ca.issue())
        await ask(address, trusting(ca))


async def test_new_authorities_for_clients_need_no_restart(ca: Authority, other_ca: Authority) -> None:
    tls = ca.server_tls(asks_clients=True)
    assert tls.client_ca is not None
    async with serving(tls) as address:
        theirs = trusting(ca, other_ca.issue("agent"))
        assert await advice_of(address, theirs)
        both = tls.client_ca.read_bytes() + other_ca.cert.read_bytes()
        tls.client_ca.write_bytes(both)
        await ask(address, theirs)
        await ask(address, trusting(ca, ca.issue("agent")))


async def test_a_client_amid_its_rotation_is_told_so(ca: Authority) -> None:
    async with serving(ca.server_tls(asks_clients=True)) as address:
        mine, fresh = ca.issue("agent"), ca.issue("agent")
        mine.cert.write_bytes(fresh.cert.read_bytes())
        with pytest.raises(CredentialsError, match="no certificate and its key"):
            await ask(address, trusting(ca, mine))
        mine.key.write_bytes(fresh.key.read_bytes())
        await ask(address, trusting(ca, mine))


@pytest.mark.parametrize(
    ("version", "served"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
async def test_nothing_before_tls_1_2(version: ssl.TLSVersion, served: bool, ca: Authority) -> None:
    def handshake(address: Address) -> str | None:
        context = ssl.create_default_context(cafile=str(ca.cert))
        # As lax as OpenSSL can be, so that it is the coordinator that refuses.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.set_alpn_protocols(["h2"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        plain = socket.create_connection((address.host, address.port), TIMEOUT_S)
        with plain, context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            return encrypted.version()

    async with serving(ca.server_tls()) as address:
        if served:
            assert await asyncio.to_thread(handshake, address) == version.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError, match=r"EOF occurred|PROTOCOL_VERSION"):
                await asyncio.to_thread(handshake, address)
