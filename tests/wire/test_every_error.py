"""Every method by `buf curl` through reflection: on success, and on each of its error reasons.

What a method may end with is what its comment in protos/ says, and that of its service. What is tried has to be just
that, so neither a method nor a reason can be forgotten, and no comment promises what does not come.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from rallypoint.errors import RULES, Reason
from support.buf_curl import BUF, Answer, ask, buf_curl
from support.error_scenes import REFLECTION, SCENES, Try
from support.tokens import token
from support.wire_client import running_coordinator

PROTOS = Path(__file__).parents[2] / "protos"
"""Comments are in no descriptor that is compiled in, and reflection has none."""

_SERVICE_FIELD, _METHOD_FIELD = 6, 2
"""The numbers of FileDescriptorProto.service and ServiceDescriptorProto.method, of which paths of comments are made."""


async def test_what_is_tried_is_what_the_comments_say() -> None:
    tried = {(trial.method, trial.reason) for scene in SCENES.values() for trial in scene.tries}
    said = await comments_by_method()
    declared = {(method, reason) for method, comment in said.items() for reason in [None, *reasons_in(comment)]}
    assert tried == declared


async def test_the_comments_are_of_what_reflection_tells() -> None:
    async with running_coordinator() as coordinator:
        listed = (await buf_curl(coordinator, "--list-methods")).out.split()
    package = "rallypoint.v1."
    assert {name.removeprefix(package) for name in listed if name.startswith(package)} == set(
        await comments_by_method()
    )


async def test_the_comments_have_the_codes_of_their_reasons() -> None:
    groups = [
        group
        for comment in (await comments_by_method()).values()
        for group in re.findall(r"([A-Z_]+) \((.*?)\)", comment)
    ]
    assert len(groups) > 20
    for code, inside in groups:
        assert {RULES[reason].code for reason in reasons_in(inside)} <= {code}, (code, inside)


@pytest.mark.parametrize("name", SCENES)
async def test_every_method_on_success_and_on_each_error(name: str, tmp_path: Path) -> None:
    kind = SCENES[name]
    async with kind.begin(tmp_path) as scene:
        turns = asyncio.Semaphore(kind.at_once)

        async def answer_to(trial: Try) -> Answer:
            async with turns:
                await scene.before_each()
                return await ask(scene.coordinator, trial.method, trial.request(scene), *headers(trial))

        answers, _ = await asyncio.gather(asyncio.gather(*map(answer_to, kind.tries)), scene.meanwhile())
    for trial, answer in zip(kind.tries, answers, strict=True):
        judge(trial, answer)


def judge(trial: Try, answer: Answer) -> None:
    told = (trial.method, trial.reason, answer)
    if trial.reason is None:
        assert answer.status == "OK", told
        assert answer.messages, told
        return
    rule = RULES[trial.reason]
    assert (answer.status, answer.reason) == (rule.code, trial.reason), told
    assert answer.details == [f"google.rpc.{kind}" for kind in ("ErrorInfo", *rule.details)], told


def headers(trial: Try) -> Iterator[str]:
    """Reflection has credentials of its own."""
    yield from ("--reflect-header", f"authorization: Bearer {token(REFLECTION)}")
    if trial.token is not None:
        yield from ("-H", f"authorization: Bearer {token(trial.token)}")


def reasons_in(text: str) -> set[Reason]:
    return {Reason(word) for word in re.findall(r"\w+", text) if word in Reason.__members__}


async def comments_by_method() -> Mapping[str, str]:
    """``JobService/GetJob``: what the protos say of the service, and of the method."""
    process = await asyncio.create_subprocess_exec(
        str(BUF), "build", str(PROTOS), "-o", "-", stdout=asyncio.subprocess.PIPE
    )
    image, _ = await process.communicate()
    found = {}
    for file in FileDescriptorSet.FromString(image).file:
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, service in enumerate(file.service):
            of_service = comments.get((_SERVICE_FIELD, number), "")
            for place, method in enumerate(service.method):
                of_method = comments.get((_SERVICE_FIELD, number, _METHOD_FIELD, place), "")
                found[f"{service.name}/{method.name}"] = " ".join(f"{of_service}\n{of_method}".split())
    return found
