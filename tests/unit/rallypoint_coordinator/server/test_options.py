from __future__ import annotations

import pytest

from rallypoint_coordinator.server.options import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "shown", "is_loopback"),
    [
        ("127.0.0.1:29400", Address("127.0.0.1", 29400), "127.0.0.1:29400", True),
        ("127.9.9.9:1", Address("127.9.9.9", 1), "127.9.9.9:1", True),
        ("localhost:0", Address("localhost", 0), "localhost:0", True),
        ("[::1]:29400", Address("::1", 29400), "[::1]:29400", True),
        ("[0:0::1]:5", Address("::1", 5), "[::1]:5", True),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535), "0.0.0.0:65535", False),
        ("[::]:1", Address("::", 1), "[::]:1", False),
        ("10.0.0.7:1", Address("10.0.0.7", 1), "10.0.0.7:1", False),
        ("node-a.example:1", Address("node-a.example", 1), "node-a.example:1", False),
    ],
)
def test_address(text: str, address: Address, shown: str, is_loopback: bool) -> None:
    assert parse_address(text) == address
    assert str(address) == shown
    assert address.is_loopback is is_loopback


@pytest.mark.parametrize(
    "text", ["", "29400", ":29400", "host", "host:", "host:x", "host:-1", "host:65536", "::1:29400", "[::1]", "[x]:1"]
)
def test_bad_address(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)
