from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rallypoint.v1 import agent_service_pb2, job_service_pb2
from rallypoint_coordinator.security.policy import POLICY, Role, Subject, job_of

MATRIX = """
                                            none  read  agent  operator
AgentService/Attach                          .     .     x      .
AgentService/ReportGone                      .     .     x      .
JobService/GetJob                            .     x     x      x
JobService/ListJobs                          .     x     .      x
JobService/ListNodes                         .     x     x      x
JobService/ListWorkers                       .     x     x      x
JobService/CancelJob                         .     .     x      x
JobService/RestartJob                        .     .     .      x
JobService/DrainNode                         .     .     .      x
Health/Check                                 x     x     x      x
Health/List                                  .     x     x      x
Health/Watch                                 x     x     x      x
ServerReflection/ServerReflectionInfo        .     x     x      x
"""
"""docs/security.md has it as well."""


def test_the_table_is_this_one() -> None:
    rows = [line.split() for line in MATRIX.strip().splitlines()[1:]]
    wanted = {method: dict(zip([None, *Role], cells, strict=True)) for method, *cells in rows}
    assert {method.rpartition(".")[2] for method in POLICY} == wanted.keys()
    for method, rule in POLICY.items():
        for role, cell in wanted[method.rpartition(".")[2]].items():
            allowed = rule.roles is None or role in rule.roles
            assert allowed == (cell == "x"), (method, role)


@pytest.mark.parametrize("service", ["AgentService", "JobService"])
def test_every_method_of_ours_is_in_the_table(service: str) -> None:
    services = {**agent_service_pb2.DESCRIPTOR.services_by_name, **job_service_pb2.DESCRIPTOR.services_by_name}
    found = services[service]
    assert {f"/{found.full_name}/{method.name}" for method in found.methods} <= POLICY.keys()


def test_where_the_job_stands_is_a_field_of_the_request() -> None:
    """A subject that names no field of its request would refuse, or let through, everything."""
    services = {**agent_service_pb2.DESCRIPTOR.services_by_name, **job_service_pb2.DESCRIPTOR.services_by_name}
    fields = {Subject.NAME: "name", Subject.PARENT: "parent", Subject.JOB: "job", Subject.HELLO: "hello"}
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
        (Subject.PARENT, SimpleNamespace(parent="jobs/train"), "train"),
        (Subject.JOB, SimpleNamespace(job="train"), "train"),
        (Subject.HELLO, SimpleNamespace(hello=SimpleNamespace(job="train")), "train"),
        (Subject.NOTHING, SimpleNamespace(name="jobs/train"), ""),
        (Subject.ALL_JOBS, SimpleNamespace(name="jobs/train"), ""),
    ],
)
def test_job_of(subject: Subject, request_: Any, job: str) -> None:
    assert job_of(subject, request_) == job
