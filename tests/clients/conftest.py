"""The example clients, where there is what they need; a coordinator and agents for them to speak to."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.js_status import js_status
from support.cluster import ProcessCluster

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"


@pytest.fixture(scope="session")
def node_client() -> Path:
    """The folder of the Node.js clients, ready to run."""
    if shutil.which("node") is None:
        pytest.skip("there is no Node.js here")
    folder = CLIENTS / "node"
    if not (folder / "node_modules" / "@grpc").is_dir():
        pytest.skip("the packages of the Node.js clients are not installed: `make clients` does that")
    return folder


@pytest.fixture(scope="session")
def cpp_status() -> Path:
    """The C++ status client."""
    for tool in ("make", "g++", "protoc", "grpc_cpp_plugin", "pkg-config"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        pytest.skip("there are no C++ libraries of gRPC and protobuf here")
    folder = CLIENTS / "cpp"
    with (folder / "Makefile").open() as lock:  # Tests run side by side: one of them builds it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", "-C", str(folder)], check=True, stdin=subprocess.DEVNULL)
    return folder / "build" / "status"


@pytest.fixture(params=["node", "cpp"])
def status(request: pytest.FixtureRequest) -> list[str]:
    """The command of the status client, in each language."""
    if request.param == "cpp":
        return [str(request.getfixturevalue("cpp_status"))]
    return js_status(request.getfixturevalue("node_client"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path) as cluster:
        yield cluster
