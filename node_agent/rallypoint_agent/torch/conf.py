"""What ``--rdzv-conf`` may say to the rallypoint backend: the policies of the job, by their names as flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rallypoint import validation
from rallypoint.durations import duration_ms, timeout_ms
from rallypoint.limits import INT32_MAX
from rallypoint.model import Endpoint, JobSpec
from rallypoint.security.client import FLAGS as SECURITY_FLAGS
from rallypoint.security.client import ClientSecurity, CredentialsError, check, security_of
from rallypoint_agent import flag_values
from rallypoint_agent.flag_names import flag_of
from rallypoint_agent.rdzv_conf import DURATIONS

_OTHERS = ("max_restarts", "scale_up", "node_name", "connect_timeout", *(flag.field for flag in SECURITY_FLAGS))
_TORCH_ONLY = ("timeout", "rank")
"""Put there by torchrun itself, for backends of its own."""


def job_spec(min_nodes: int, max_nodes: int, conf: Mapping[str, Any]) -> JobSpec:
    """Raises ValueError for a key or a value that is not known.

    The budget of restarts is torchrun's own, per agent (``--max-restarts``). ``max_restarts`` bounds those of the
    whole job besides; without it the coordinator sets no bound.
    """
    _check_keys(conf)
    policies: dict[str, Any] = {
        f"{name}_ms": _read(name, conf[name], duration_ms) for name in DURATIONS if name in conf
    }
    if "scale_up" in conf:
        policies["scale_up"], policies["scale_up_delay_ms"] = _read("scale_up", conf["scale_up"], flag_values.scale_up)
    spec = JobSpec(
        min_nodes=min_nodes,
        max_nodes=max_nodes,
        max_restarts=_read("max_restarts", conf.get("max_restarts", INT32_MAX), flag_values.whole),
        **policies,
    )
    refusal = validation.check_job_spec(spec)
    if refusal is not None:
        raise ValueError(f"--rdzv-conf: {refusal.message}")
    return spec


def connect_timeout_ms(conf: Mapping[str, Any]) -> int:
    """How long to look for the coordinator at the start; as ``rallypoint run`` has it by default: 60 s."""
    return int(_read("connect_timeout", conf.get("connect_timeout", "60s"), timeout_ms))


def endpoints(given: str) -> tuple[Endpoint, ...]:
    """From ``--rdzv-endpoint``. Raises ValueError."""
    if not given:
        raise ValueError("--rdzv-backend=rallypoint needs --rdzv-endpoint=HOST:PORT, the coordinator's")
    try:
        return flag_values.endpoints(given)
    except ValueError as error:
        raise ValueError(f"--rdzv-endpoint {given}: {error}") from None


def security(conf: Mapping[str, Any], endpoints: tuple[Endpoint, ...]) -> ClientSecurity:
    """Paths from the flags' names with underscores, or from their variables. Raises ValueError."""
    found = security_of(conf)
    try:
        check(found, (host for host, _ in endpoints))
    except CredentialsError as error:
        raise ValueError(f"--rdzv-conf: {error}") from None
    return found


def _check_keys(conf: Mapping[str, Any]) -> None:
    known = {*DURATIONS, *_OTHERS, *_TORCH_ONLY}
    unknown = sorted(set(conf) - known)
    if unknown:
        offered = ", ".join(sorted(known - set(_TORCH_ONLY)))
        raise ValueError(f"--rdzv-conf: {unknown[0]} is not known to the rallypoint backend, which takes {offered}")


def _read(name: str, given: Any, reader: Any) -> Any:
    try:
        return reader(str(given))
    except ValueError as error:
        raise ValueError(f"--rdzv-conf {name}={given}: {error} ({flag_of(name)})") from None
