from __future__ import annotations

import pytest

from rallypoint.endpoints import parse_endpoint, target


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("head", ("head", 29400)),
        (" 10.0.0.1:1 ", ("10.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]", ("fe80::1%eth0", 29400)),
    ],
)
def test_what_is_an_endpoint(given: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(given) == endpoint
    assert parse_endpoint(target(endpoint)) == endpoint


@pytest.mark.parametrize("given", ["", "::1", "a:b", "a:", "a b:1", "http://a:1", "a:0", "a:65536", "a:" + "9" * 5000])
def test_what_is_none(given: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_endpoint(given)


def test_any_port_where_that_is_meant() -> None:
    assert parse_endpoint("a:0", least_port=0) == ("a", 0)
