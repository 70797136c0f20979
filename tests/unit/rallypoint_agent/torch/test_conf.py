"""What --rdzv-conf may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rallypoint.limits import INT32_MAX
from rallypoint.model import Endpoint, ScaleUp
from rallypoint.security.client import ClientSecurity
from rallypoint_agent.torch import conf


def test_torchruns_own_budget_is_the_only_one_unless_asked() -> None:
    assert conf.job_spec(1, 2, {}).max_restarts == INT32_MAX
    assert conf.job_spec(1, 2, {"max_restarts": "3"}).max_restarts == 3


def test_policies_read_as_flags_do() -> None:
    given = {"lease_ttl": "20s", "join_timeout": "600", "scale_up": "after=2m", "timeout": 900}
    spec = conf.job_spec(2, 4, given)
    assert (spec.min_nodes, spec.max_nodes) == (2, 4)
    assert (spec.lease_ttl_ms, spec.join_timeout_ms) == (20_000, 600_000)
    assert (spec.scale_up, spec.scale_up_delay_ms) == (ScaleUp.AFTER, 120_000)
    assert conf.connect_timeout_ms({"connect_timeout": "5"}) == 5_000


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"last_call": "1"}, "last_call is not known to the rallypoint backend, which takes connect_timeout, "),
        ({"lease_ttl": "soon"}, "lease_ttl=soon: it must be a number"),
        ({"lease_ttl": "1ms"}, "lease_ttl"),
        ({"max_restarts": "-1"}, "max_restarts=-1: it must be a whole number"),
        ({"scale_up": "never"}, "scale_up=never: it must be immediate"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        conf.job_spec(1, 1, given)


def test_endpoints() -> None:
    assert conf.endpoints("h:1,[::1]:2") == (Endpoint("h", 1), Endpoint("::1", 2))
    for given in ("", "h:x"):
        with pytest.raises(ValueError, match="--rdzv-endpoint"):
            conf.endpoints(given)


def test_how_we_show_who_we_are(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("rpt_secret")
    near, far = (Endpoint("localhost", 1),), (Endpoint("c", 1),)
    given = {"token_file": str(token_file)}
    assert conf.job_spec(1, 1, given).min_nodes == 1, "the policies' reader knows the keys"
    assert conf.security(given, near) == ClientSecurity(str(token_file))
    with pytest.raises(ValueError, match="--rdzv-conf: the token would go to c in plain text"):
        conf.security(given, far)
