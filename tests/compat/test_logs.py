"""torch's own code beside ours: what is asked for in the same words is written to the same places, in the same form."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rallypoint.worker import record, write_error_file
from rallypoint_agent.errors import read_error_file
from rallypoint_agent.flag_values import texts
from rallypoint_agent.logs import DefaultLogsSpecs, LogsDest, LogsSpecs, Std, line_prefix, load_logs_specs
from rallypoint_agent.telemetry import Telemetry
from support.entry_points import plug_in

torch = pytest.importorskip("torch")

MAPPINGS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=4).map(
    lambda pairs: ",".join(f"{rank}:{std}" for rank, std in pairs)
)


def read_by(from_str: Callable[[str], Any], text: str) -> object:
    """As plain numbers; None for a refusal."""
    try:
        value = from_str(text)
    except ValueError:
        return None
    return {rank: int(std) for rank, std in value.items()} if isinstance(value, dict) else int(value)


@settings(max_examples=500)
@given(st.one_of(MAPPINGS, st.text("0123:, x", max_size=8)))
@example("0:1,1:2")
@example("3")
@example("00:0")
@example("10:1")
def test_whatever_torch_reads_we_read_alike(text: str) -> None:
    """What torch does not read we read only for local ranks above 9. Of two it takes the last; we refuse them."""
    from torch.distributed.elastic.multiprocessing import Std as TorchStd

    theirs, ours = read_by(TorchStd.from_str, text), read_by(Std.from_str, text)
    if theirs is None:
        assert ours is None or (isinstance(ours, dict) and max(ours) > 9)
    elif isinstance(theirs, dict) and len(theirs) < len(text.split(",")):
        assert ours is None
    else:
        assert ours == theirs


@given(st.text("ab,", max_size=10))
def test_lists_of_texts_are_torchs_without_the_empty_ones(text: str) -> None:
    """An empty one would pick every line."""
    from torch.distributed.run import get_args_parser

    parsed = get_args_parser().parse_args([f"--duplicate-stdout-filters={text}", "x.py"])
    assert texts(text) == tuple(item for item in parsed.duplicate_stdout_filters if item)


@pytest.mark.parametrize("name", ["__init__", "reify"])
def test_log_specs_are_called_as_torchs(name: str) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs as Theirs

    ours, theirs = (inspect.signature(getattr(cls, name)).parameters for cls in (DefaultLogsSpecs, Theirs))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, Std(int(p.default)) if isinstance(p.default, int) else p.default) for p in theirs.values()
    ]


def test_log_destinations_have_torchs_fields() -> None:
    from torch.distributed.elastic.multiprocessing import LogsDest as Theirs

    assert list(inspect.signature(LogsDest).parameters) == list(inspect.signature(Theirs).parameters)


def test_log_specs_made_for_torch_are_given_torchs_std(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, monkeypatch, "torchrun.logs_specs", {"theirs": "made_for_torch:Theirs"})
    (tmp_path / "made_for_torch.py").write_text(
        "from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs\nclass Theirs(DefaultLogsSpecs): pass\n"
    )
    specs: LogsSpecs = load_logs_specs("theirs", str(tmp_path / "logs"), Std.NONE, {0: Std.OUT}, None)
    dest = specs.reify({0: {"TORCHELASTIC_RUN_ID": "j"}, 1: {}})
    assert set(dest.tee_stdouts) == {0}


@pytest.mark.parametrize("template", ["${role_name}/${rank}/${local_rank}:", "$rank ${other} $$", "$", None, ""])
def test_the_prefix_is_torchs(template: str | None) -> None:
    from string import Template

    theirs = Template(template).safe_substitute(role_name="r", rank=11, local_rank=3) if template else "[r3]:"
    assert line_prefix(template, "r", 3, 11) == theirs


# --- two launchers, one command line

WORKER = """
import os, pathlib, sys, time
rank = os.environ["RANK"]
print("out of", rank, "loss=1")
print("err of", rank, file=sys.stderr)
sys.stdout.flush()
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    pathlib.Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text('{"message": "first"}')
    done = pathlib.Path(__file__).with_name("rank 1 has written")
    if rank == "1":
        done.touch()
        sys.exit(0)
    while not done.exists():  # Whoever fails ends the other.
        time.sleep(0.01)
    sys.exit(1)
"""

COMMAND_LINES = {
    "teed and copied": "-t 3 --local-ranks-filter 1 --duplicate-stdout-filters loss --duplicate_stderr_filters=x",
    "by rank": "--redirects 0:1,1:2 --tee 1:1",
}


def launch(module: str, folder: Path, line: str) -> tuple[dict[str, str], list[str], list[str]]:
    """What is in the log folder, and what was shown: on standard output all, on standard error the workers' lines."""
    logs = folder / "logs"
    (folder / "worker.py").write_text(WORKER)
    flags = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", f"--log-dir={logs}", *line.split()]
    command = [sys.executable, "-m", *module.split(), *flags, str(folder / "worker.py")]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    (root,) = logs.iterdir()
    files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    folders = {str(path.relative_to(root)): "" for path in root.rglob("*") if path.is_dir()}
    shown = [line for line in run.stderr.splitlines() if "err of" in line]
    return {**files, **folders}, sorted(run.stdout.splitlines()), sorted(shown)


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_the_log_folder_and_the_console_are_torchruns(name: str, tmp_path: Path) -> None:
    """Both count their attempts alike as long as every round is a restart."""
    made = []
    for launcher in ("torch.distributed.run", "rallypoint run"):
        folder = tmp_path / launcher
        folder.mkdir()
        made.append(launch(launcher, folder, COMMAND_LINES[name]))
    theirs, ours = made
    assert ours == theirs
    assert "attempt_1/0/stdout.log" in ours[0]


# --- errors


@pytest.fixture
def error_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    return path


def raise_one() -> None:
    raise ValueError("no")


def test_both_records_leave_the_same(error_file: Path) -> None:
    from torch.distributed.elastic.multiprocessing.errors import record as torchs_record

    left = []
    for decorate in (torchs_record, record):
        with pytest.raises(ValueError, match="no"):
            decorate(raise_one)()
        data = json.loads(error_file.read_text())
        assert data["message"]["extraInfo"].pop("timestamp").isdecimal()
        trace = data["message"]["extraInfo"].pop("py_callstack")
        assert trace.endswith('in raise_one\n    raise ValueError("no")\nValueError: no\n')
        assert read_error_file(str(error_file)).traceback == trace
        left.append(data)
    assert left[0] == left[1]


def test_torchs_agent_understands_our_file(error_file: Path) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    write_error_file(ValueError("no"))
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(error_file))
    assert failure.message == json.loads(error_file.read_text())["message"]
    assert failure.timestamp > 1_700_000_000


def test_a_torchrun_above_us_reads_what_we_leave(error_file: Path, tmp_path: Path) -> None:
    """As a scheduler does that starts agents with TORCHELASTIC_ERROR_FILE."""
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    script = tmp_path / "fail.py"
    script.write_text("import sys\nfrom torch.distributed.elastic.multiprocessing.errors import record\n"
                      "@record\ndef main(): raise ValueError('no')\nmain()\n")  # fmt: skip
    run = subprocess.run([sys.executable, "-m", "rallypoint", "run", "--standalone", str(script)], check=False)
    assert run.returncode == 1
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(error_file))
    assert failure.message["message"] == "ValueError: no"
    assert failure.message["errorCode"] == 1
    assert "in main" in failure.message["extraInfo"]["py_callstack"]


# --- events and metrics


def test_an_event_has_torchs_fields() -> None:
    from torch.distributed.elastic.agent.server.api import SimpleElasticAgent, Worker, WorkerSpec
    from torch.distributed.elastic.events import EventSource

    class Handler:
        def get_run_id(self) -> str:
            return "j"

        def get_backend(self) -> str:
            return "b"

    def made_by(cls: Any, *args: Any) -> tuple[set[str], set[str]]:
        event = cls._construct_event(*args, "START", EventSource.WORKER, Worker(0))
        inner = json.loads(event.metadata["metadata"])
        return set(event.metadata), set(inner)

    class Bare:
        _total_execution_time = 0
        _remaining_restarts = 0
        _hostname = None

        def __init__(self) -> None:
            from torch.distributed.elastic.agent.server.api import WorkerGroup

            self._worker_group = WorkerGroup(WorkerSpec("r", 1, Handler(), entrypoint="x"))

    assert made_by(Telemetry, Bare()) == made_by(SimpleElasticAgent, Bare())


def test_the_api_has_torchs_names() -> None:
    from torch.distributed.elastic import events as their_events
    from torch.distributed.elastic import metrics as their_metrics

    from rallypoint_agent import events, metrics

    for name in (
        "Event",
        "EventSource",
        "NodeState",
        "RdzvEvent",
        "get_logging_handler",
        "record",
        "record_rdzv_event",
    ):
        assert set(parameters(getattr(their_events, name))) == set(parameters(getattr(events, name)))
    for name in ("configure", "getStream", "prof", "put_metric", "MetricData", "MetricStream"):
        assert list(parameters(getattr(their_metrics.api, name))) == list(parameters(getattr(metrics, name)))


def parameters(thing: Any) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name not in ("values", "value")]
