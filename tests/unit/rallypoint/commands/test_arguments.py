from __future__ import annotations

import pytest

from rallypoint.commands.arguments import parser_of


def test_what_is_not_given_has_its_default() -> None:
    arguments = parser_of("status", "", ("JOB", "a job"), environ={}).parse_args(["train"])
    assert (arguments.job, arguments.coordinator) == ("train", (("127.0.0.1", 29400),))
    assert (arguments.timeout, arguments.output, arguments.insecure) == (10.0, "text", False)


def test_the_resource_name_of_a_job_will_do() -> None:
    assert parser_of("status", "", ("JOB", "a job"), environ={}).parse_args(["jobs/train"]).job == "train"


def test_the_coordinator_comes_from_its_variable_unless_it_is_given() -> None:
    parser = parser_of("jobs", "", environ={"RALLYPOINT_COORDINATOR": "a:1,[::1]"})
    assert parser.parse_args([]).coordinator == (("a", 1), ("::1", 29400))
    assert parser.parse_args(["--coordinator", "b"]).coordinator == (("b", 29400),)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "JOB"),
        (["train", "--coordinator", "a:0"], "'a:0': a port must be 1 to 65535"),
        (["train", "--timeout", "0"], "it must be more than 0 s"),
        (["train", "-o", "yaml"], "invalid choice: 'yaml'"),
        (["\udcff"], "it must be UTF-8"),
    ],
)
def test_wrong_usage(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser_of("status", "", ("JOB", "a job"), environ={}).parse_args(argv)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_a_variable_that_makes_no_sense_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser_of("jobs", "", environ={"RALLYPOINT_COORDINATOR": "a:b"}).parse_args([])
    assert "'a:b': it must be HOST:PORT" in capsys.readouterr().err
