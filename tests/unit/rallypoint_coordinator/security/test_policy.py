from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rallypoint.v1 import agent_service_pb2, job_service_pb2
from rallypoint_coordinator.security.policy import POLICY, Role, Subject, job_of

DOCS = Path(__file__).parents[4] / "docs" / "security.md"


def rows_of_the_docs() -> dict[str, set[Role | None]]:
    """The table under "Roles": who may call each method; None is nobody in particular."""
    _, _, section = DOCS.read_text().partition("\n## Roles\n")
    rows: dict[str, set[Role | None]] = {}
    for line in section.partition("\n## ")[0].splitlines():
        first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not line.startswith("|") or "/" not in first:
            continue
        service = first.partition("/")[0]
        for name in first.split(", "):
            allowed = {who for who, cell in zip((None, *Role), cells, strict=False) if cell == "x"}
            rows[name if "/" in name else f"{service}/{name}"] = allowed
    return rows


def test_the_table_is_that_of_the_docs() -> None:
    documented = rows_of_the_docs()
    assert {method.rpartition(".")[2] for method in POLICY} == documented.keys()
    for method, rule in POLICY.items():
        allowed = {None, *Role} if rule.roles is None else set(rule.roles)
        assert documented[method.rpartition(".")[2]] == allowed, method


@pytest.mark.parametrize("service", ["AgentService", "JobService"])
def test_every_method_of_ours_is_in_the_table(service: str) -> None:
    services = {**agent_service_pb2.DESCRIPTOR.services_by_name, **job_service_pb2.DESCRIPTOR.services_by_name}
    found = services[service]
    assert {f"/{found.full_name}/{method.name}" for method in found.methods} <= POLICY.keys()


def test_where_the_job_stands_is_a_field_of_the_request() -> None:
    """A subject that names no field of its request would refuse, or let through, everything."""
    services = {**agent_service_pb2.DESCRIPTOR.services_by_name, **job_service_pb2.DESCRIPTOR.services_by_name}
    fields = {Subject.NAME: "name", Subject.PARENT: "parent", Subject.JOB: "job", Subject.HELLO: "hello"}
    # job is a message for a resource, and a name for the others: job_of would raise for the wrong one.
    fields[Subject.RESOURCE] = "job"
    for service in services.values():
        for method in service.methods:
            subject = POLICY[f"/{service.full_name}/{method.name}"].subject
            has = {field.name for field in method.input_type.fields}
            if subject in fields:
                assert fields[subject] in has, method.full_name
            else:
                assert not has & set(fields.values()), method.full_name


@pytest.mark.parametrize(
    ("subject", "request_", "job"),
    [
        (Subject.NAME, SimpleNamespace(name="jobs/train"), "train"),
        (Subject.NAME, SimpleNamespace(name="jobs/train/nodes/a"), "train"),
        (Subject.NAME, SimpleNamespace(name="nodes/train"), ""),
        (Subject.NAME, SimpleNamespace(name="train"), ""),
        (Subject.NAME, SimpleNamespace(name=""), ""),
        (Subject.RESOURCE, SimpleNamespace(job=SimpleNamespace(name="jobs/train")), "train"),
        (Subject.RESOURCE, SimpleNamespace(job=SimpleNamespace(name="train")), ""),
        (Subject.PARENT, SimpleNamespace(parent="jobs/train"), "train"),
        (Subject.JOB, SimpleNamespace(job="train"), "train"),
        (Subject.HELLO, SimpleNamespace(hello=SimpleNamespace(job="train")), "train"),
        (Subject.NOTHING, SimpleNamespace(name="jobs/train"), ""),
        (Subject.ALL_JOBS, SimpleNamespace(name="jobs/train"), ""),
    ],
)
def test_job_of(subject: Subject, request_: Any, job: str) -> None:
    assert job_of(subject, request_) == job
