from __future__ import annotations

from dataclasses import replace

import pytest

from rallypoint.model import Assignment, Endpoint
from rallypoint_agent.worker_env import GroupEnv, worker_args, worker_env

GROUP = GroupEnv(
    base={"PATH": "/bin", "RANK": "stale", "TORCHELASTIC_ERROR_FILE": "the agent's"},
    role="trainer",
    local_world_size=2,
    max_restarts=3,
    run_id="job7",
    job_uid="uid-1",
)
ASSIGNMENT = Assignment(
    round=4,
    restart_count=1,
    group_rank=2,
    group_world_size=3,
    first_rank=5,
    world_size=9,
    first_role_rank=3,
    role_world_size=6,
    endpoint=Endpoint("10.0.0.1", 4001),
)


def env(**base: str) -> dict[str, str]:
    group = replace(GROUP, base={**GROUP.base, **base})
    return worker_env(group, ASSIGNMENT, 1)


def test_it_is_torchruns_environment_and_the_fencing_tokens() -> None:
    assert env() == {
        "PATH": "/bin",
        "LOCAL_RANK": "1",
        "RANK": "6",
        "GROUP_RANK": "2",
        "ROLE_RANK": "4",
        "ROLE_NAME": "trainer",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "9",
        "GROUP_WORLD_SIZE": "3",
        "ROLE_WORLD_SIZE": "6",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "4001",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "TORCHELASTIC_RUN_ID": "job7",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_ERROR_FILE": "",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "OMP_NUM_THREADS": "1",
        "RALLYPOINT_ROUND": "4",
        "RALLYPOINT_JOB_UID": "uid-1",
    }


def test_every_rank_is_a_client_of_the_agents_store() -> None:
    made = worker_env(replace(GROUP, use_agent_store=True), ASSIGNMENT, 0)
    assert made["TORCHELASTIC_USE_AGENT_STORE"] == "True"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "TORCH_NCCL_ASYNC_ERROR_HANDLING"])
def test_what_the_user_set_stays(name: str) -> None:
    assert env(**{name: "7"})[name] == "7"


def test_the_agents_token_stays_with_the_agent() -> None:
    assert "RALLYPOINT_TOKEN" not in env(RALLYPOINT_TOKEN="rpt_secret")


def test_a_worker_alone_on_its_node_may_use_all_threads() -> None:
    group = replace(GROUP, local_world_size=1)
    assert "OMP_NUM_THREADS" not in worker_env(group, ASSIGNMENT, 0)


@pytest.mark.parametrize(("visible", "device"), [(None, "1"), ("4,6", "6"), ("GPU-a, GPU-b", "GPU-b")])
def test_a_virtual_local_rank_sees_one_device(visible: str | None, device: str) -> None:
    base = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    group = replace(GROUP, base=base, virtual_local_rank=True)
    made = worker_env(group, ASSIGNMENT, 1)
    assert (made["LOCAL_RANK"], made["CUDA_VISIBLE_DEVICES"]) == ("0", device)
    assert made["RANK"] == "6"


def test_a_virtual_local_rank_needs_a_device() -> None:
    group = replace(GROUP, base={"CUDA_VISIBLE_DEVICES": "4"}, virtual_local_rank=True)
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES=4"):
        worker_env(group, ASSIGNMENT, 1)


def test_the_local_rank_can_stand_in_an_argument() -> None:
    assert worker_args(["--rank=${local_rank}", 7], 3) == ["--rank=3", 7]


@pytest.mark.parametrize("text", ["$$", "$", "${other}", "$local_rank", "{local_rank}", "${"])
def test_nothing_else_in_an_argument_changes(text: str) -> None:
    assert worker_args([text], 3) == [text]
