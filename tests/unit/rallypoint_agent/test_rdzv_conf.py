from __future__ import annotations

import pytest

from rallypoint.model import StoreHost
from rallypoint_agent.rdzv_conf import RdzvConf, read


@pytest.mark.parametrize(
    ("given", "conf"),
    [
        ("", RdzvConf()),
        ("store=agent", RdzvConf(StoreHost.AGENT)),
        (" store = worker , ", RdzvConf()),
        ("join_timeout=600,scale_up=after=9s", RdzvConf(flags={"join_timeout": "600", "scale_up": "after=9s"})),
        ("is_host=Yes", RdzvConf(is_host=True)),
        ("is_host=0", RdzvConf(is_host=False)),
        ("read_timeout=5,store=agent,rank=0", RdzvConf(StoreHost.AGENT, ignored=("read_timeout", "rank"))),
    ],
)
def test_what_it_says(given: str, conf: RdzvConf) -> None:
    assert read(given) == conf


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("cert=x", "cert is not known; there are store, lease_ttl,"),
        ("store=coordinator", "store must be worker or agent, not coordinator"),
        ("is_host=maybe", "is_host must be true or false, not maybe"),
        ("store", "must be KEY=VALUE,KEY=VALUE, and store is not"),
        ("join_timeout=", "and join_timeout= is not"),
        ("=3", "and =3 is not"),
    ],
)
def test_what_makes_no_sense(given: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(given)
