"""The protocol of another release, from its descriptors alone: nothing here uses generated code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "rallypoint.v1"
RELEASED = Path(__file__).parents[2] / "protos" / "released"
BEFORE_THE_FIRST = Path(__file__).parents[1] / "protocols" / "before-0.1.0.binpb"
"""What the very first coordinator spoke: nobody was given it, but it is older than all that was released."""

KEPT = [BEFORE_THE_FIRST, *sorted(RELEASED.glob("*.binpb"))]

ADDED = "added_later"
ADDED_NUMBER = 10_000
KINDS_GET_MORE = {"AttachRequest": "message", "AttachResponse": "message", "Directive": "action"}
"""Messages whose oneof of this name has another kind in a later release."""


class Protocol:
    """What one release speaks: its messages, made of keyword arguments, and its calls."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self._pool = DescriptorPool()
        for file in files.file:
            self._pool.AddSerializedFile(file.SerializeToString())
        self._files = [file for file in files.file if file.package == PACKAGE]

    def message_class(self, name: str) -> Any:
        return GetMessageClass(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    def make(self, name: str, /, **fields: Any) -> Any:
        """A message. A dict stands for a message in it."""
        return self.message_class(name)(**fields)

    def number(self, enum_value: str) -> int:
        """The number of an enum's value: their names are unique in the package."""
        enums = (enum for file in self._files for enum in file.enum_type)
        return next(value.number for enum in enums for value in enum.value if value.name == enum_value)

    def word(self, message: Message, field: str) -> str:
        """The name of the enum value that a field has."""
        enum = message.DESCRIPTOR.fields_by_name[field].enum_type
        assert enum is not None
        name: str = enum.values_by_number[getattr(message, field)].name
        return name

    def methods(self) -> Iterator[tuple[str, str]]:
        """Every service's name, with the name of each of its methods."""
        for file in self._files:
            for service in file.service:
                yield from ((service.name, method.name) for method in service.method)

    def stub(self, channel: grpc.aio.Channel, service: str) -> Any:
        """The service's methods by their names."""
        descriptor = self._pool.FindServiceByName(f"{PACKAGE}.{service}")
        return SimpleNamespace(**{method.name: _callable(channel, method) for method in descriptor.methods})


def _callable(channel: grpc.aio.Channel, method: Any) -> Any:
    kind = "_".join("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    return getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )


def read_image(path: Path) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(path.read_bytes())


def kept(path: Path) -> Protocol:
    return Protocol(read_image(path))


def later() -> Protocol:
    """The newest release's with a field more in each message, a value more in each enum, and kinds more."""
    files = read_image(max(RELEASED.glob("*.binpb"), key=lambda path: [int(part) for part in path.stem.split(".")]))
    for file in files.file:
        if file.package == PACKAGE:
            _add_to(file)
    return Protocol(files)


def _add_to(file: FileDescriptorProto) -> None:
    for message in file.message_type:
        _add_field(message, ADDED, ADDED_NUMBER, FieldDescriptorProto.TYPE_STRING)
        if message.name in KINDS_GET_MORE:
            kind = _add_field(message, f"{ADDED}_kind", ADDED_NUMBER + 1, FieldDescriptorProto.TYPE_MESSAGE)
            kind.type_name = f".{PACKAGE}.Version"
            kind.oneof_index = [oneof.name for oneof in message.oneof_decl].index(KINDS_GET_MORE[message.name])
    for enum in file.enum_type:
        enum.value.add(name=f"{_prefix(enum)}_{ADDED.upper()}", number=ADDED_NUMBER)


def _add_field(
    message: DescriptorProto, name: str, number: int, kind: FieldDescriptorProto.Type.ValueType
) -> FieldDescriptorProto:
    return message.field.add(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)


def _prefix(enum: EnumDescriptorProto) -> str:
    return enum.value[0].name.removesuffix("_UNSPECIFIED")


def fill(message: Any) -> Any:
    """Set what the later release has more in this message, and in every one that is in it; returns it."""
    setattr(message, ADDED, "what nobody knows yet")
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and ADDED in kind.fields_by_name:
            for each in [value] if isinstance(value, Message) else value:
                fill(each)
    return message
