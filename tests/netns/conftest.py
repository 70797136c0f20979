"""Each test here runs in a process of its own, in namespaces of its own; where there can be none it is skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import netns


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if netns.is_inside():
        return None
    if reason := netns.why_impossible():
        pytest.skip(f"there can be no network namespaces here: {reason}")
    outside = pyfuncitem.funcargs["tmp_path"]
    assert isinstance(outside, Path)
    folder = outside / "inside"
    pytest_again = [sys.executable, "-m", "pytest", pyfuncitem.nodeid, f"--basetemp={folder}", "-p", "no:cacheprovider"]
    command, env = netns.command_inside(pytest_again)
    done = subprocess.run(command, env=env, cwd=pyfuncitem.config.rootpath, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{done.stdout}\n{done.stderr}", pytrace=False)
    return True
