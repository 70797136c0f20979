"""Calls by `buf curl`: a client that knows nothing but what reflection tells it."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo

from support.wire_client import Coordinator

BUF = Path(sys.executable).with_name("buf")

TIMEOUT_S = 60.0


@dataclass
class Answer:
    """``status`` is the name of the RPC's status code."""

    status: str
    out: str
    err: str

    @property
    def message(self) -> Any:
        return json.loads(self.out)

    @property
    def messages(self) -> list[Any]:
        return [json.loads(part) for part in self.out.replace("}\n{", "}\0{").split("\0") if part.strip()]

    @property
    def error(self) -> Any:
        return json.loads(self.err)

    @property
    def details(self) -> list[str]:
        """The types of the error's details."""
        return [detail["type"] for detail in self.error.get("details", ())]

    @property
    def reason(self) -> str:
        """Of the ErrorInfo."""
        (value,) = (detail["value"] for detail in self.error["details"] if detail["type"] == "google.rpc.ErrorInfo")
        return ErrorInfo.FromString(base64.b64decode(f"{value}===")).reason


async def buf_curl(coordinator: Coordinator, *arguments: str, path: str = "", data: str = "") -> Answer:
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments),
        f"http://{coordinator.address}{path}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(data.encode()), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code, rest = divmod(process.returncode or 0, 8)
    status = next(status.name for status in grpc.StatusCode if status.value[0] == code)
    return Answer(status if rest == 0 else "buf failed", out.decode(), err.decode())


async def ask(coordinator: Coordinator, method: str, request: Any, *arguments: str) -> Answer:
    """``method``: ``JobService/GetJob``. ``request``: the message as JSON, or a list of them for a stream."""
    requests = request if isinstance(request, list) else [request]
    data = "\n".join(map(json.dumps, requests))
    return await buf_curl(coordinator, *arguments, "-d", "@-", path=f"/rallypoint.v1.{method}", data=data)
