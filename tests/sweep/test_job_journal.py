"""The journal of a sweep: what is read back is what was written, also after a kill, and nothing else is accepted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mlxlab.errors import CannotCreateError, DataError, InputNotFoundError
from mlxlab.sweep.job_journal import FILE, Job, SweepStart, open_job_journal, read_job_journal

START = SweepStart(
    format=1, overrides=["seed=0,1"], config_dir=None, config_name="train", objective="valid/loss"
)
WAITING = Job(0, ["seed=0"], "", "waiting", "", None, 0, 0.0, None, "0")


def test_the_last_record_of_each_job_counts_and_a_torn_line_does_not(tmp_path):
    with open_job_journal(tmp_path, START) as journal:
        journal.record(WAITING, replace(WAITING, number=1, folder="1"))
        journal.record(
            replace(WAITING, state="finished", value=0.5, exit_code=0, attempts=1, seconds=2.0)
        )
        with (
            pytest.raises(CannotCreateError, match="another process is writing"),
            open_job_journal(tmp_path, START),
        ):
            pass
    with (tmp_path / FILE).open("a") as file:
        file.write('{"t":1,"job":{"numb')
    start, jobs = read_job_journal(tmp_path)
    assert start == START
    assert [(job.number, job.state, job.value) for job in jobs] == [
        (0, "finished", 0.5),
        (1, "waiting", None),
    ]
    with open_job_journal(tmp_path, SweepStart(**{**START, "overrides": ["seed=7"]})) as journal:
        assert journal.start == START
        journal.record(replace(jobs[1], state="failed", reason="killed by SIGKILL"))
    assert read_job_journal(tmp_path)[1][1].reason == "killed by SIGKILL"


def _line(**changes: object) -> str:
    return json.dumps({"t": 1, "job": {**vars(WAITING), **changes}})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}"], "sweep.jsonl:1: 't' is missing"),
        ([_line()], "expected the start of a sweep"),
        (
            [json.dumps({"t": 1, "sweep": START}), json.dumps({"t": 1})],
            "sweep.jsonl:2: expected a job",
        ),
        ([json.dumps({"t": 1, "sweep": START}), _line(folder="../0")], "expected a path inside"),
        ([json.dumps({"t": 1, "sweep": START}), _line(folder="/etc")], "expected a path inside"),
        ([json.dumps({"t": 1, "sweep": START}), _line(number=-1)], "job.number: expected Ge"),
        ([json.dumps({"t": 1, "sweep": START}), _line(state="done")], "job.state: expected one of"),
        (
            [json.dumps({"t": 1, "sweep": START}), _line(value=float("nan"))],
            "expected finite numbers",
        ),
        ([], "empty"),
    ],
)
def test_a_journal_of_a_stranger_is_checked(tmp_path: Path, lines: list[str], message: str):
    (tmp_path / FILE).write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=message):
        read_job_journal(tmp_path)


def test_a_folder_without_a_journal_is_not_a_sweep(tmp_path):
    with pytest.raises(InputNotFoundError, match="expected the folder of a sweep"):
        read_job_journal(tmp_path)
