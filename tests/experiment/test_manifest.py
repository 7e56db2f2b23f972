"""The manifest: what a run says of itself, whatever becomes of it."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict

import psutil
import pytest

from mlxlab.distillation.options import NO_DISTILLATION
from mlxlab.errors import DataError, DivergenceError, InputNotFoundError, RunInterrupted
from mlxlab.experiment.facts.attempts import deciding_attempt, seconds_of
from mlxlab.experiment.manifest import (
    STATUSES,
    RunManifest,
    effective_status,
    read_manifest,
    with_ended_attempts,
)
from mlxlab.experiment.metadata import lineage
from mlxlab.experiment.past_run.earlier_run import set_aside_earlier_run
from mlxlab.tracking import provenance
from support.processes import final_state, run, start, tiny_overrides, wait_for


def status_of(folder):
    """By the file for shell scripts; there is always exactly one, and it agrees with the manifest."""
    [status] = [status for status in STATUSES if (folder / f"STATUS.{status}").exists()]
    assert status == read_manifest(folder)["status"]
    return status


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "DONE", 0),
        (RunInterrupted("stopped at step 3", 15), "PREEMPTED", 143),
        (KeyboardInterrupt(), "PREEMPTED", 130),
        (DivergenceError("not finite"), "FAILED", 78),
        (ZeroDivisionError("a bug of ours"), "FAILED", 1),
    ],
)
def test_the_status_records_how_the_run_ended(tmp_path, error, status, code):
    with suppress(*([type(error)] if error else [])), RunManifest(tmp_path) as manifest:
        assert status_of(tmp_path) == effective_status(tmp_path) == "RUNNING"
        manifest.begin({})
        if error:
            raise error
    facts = read_manifest(tmp_path)
    assert status_of(tmp_path) == effective_status(tmp_path) == status
    assert facts["outcome"]["exit_code"] == facts["attempts"][-1]["exit_code"] == code
    assert facts["attempts"][-1].get("error", "") == (
        str(error) or type(error).__name__ if error else ""
    )
    assert 0 <= facts["outcome"]["wall_seconds"] < 60


def test_numbers_stay_numbers_and_a_commit_of_digits_stays_text(tmp_path, monkeypatch):
    outcome = {"best": 7.5e-06, "steps": 12, "final_state": "2024", "speed": float("nan")}
    monkeypatch.setattr(
        provenance, "git", lambda: {"mlflow.source.git.commit": "1234567", "git.dirty": "false"}
    )
    with RunManifest(tmp_path) as manifest:
        manifest.begin({"teachers": {"a": "007"}})
        manifest.record(outcome.copy())
    facts = json.loads((tmp_path / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert facts["git"] == {"commit": "1234567", "dirty": "false"}
    assert facts["inputs"]["teachers"] == {"a": "007"}
    assert {key: facts["outcome"][key] for key in outcome} == outcome | {"speed": None}


def test_the_next_attempt_keeps_id_and_name_and_adds_its_duration(tmp_path):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({}, "0a", "first")
    before = read_manifest(tmp_path)
    with RunManifest(tmp_path) as manifest:
        manifest.begin({"parents": [{"kind": "teacher", "of": "x"}]})
    after = read_manifest(tmp_path)
    assert (after["id"], after["name"]) == (before["id"], before["name"]) == ("0a", "first")
    assert after["attempts"][0] == before["attempts"][0]
    assert len(after["attempts"]) == 2
    assert after["outcome"]["wall_seconds"] == pytest.approx(
        sum(a["end"] - a["start"] for a in after["attempts"])
    )


def test_another_run_in_the_folder_counts_its_own_attempts_only(tmp_path):
    for uid in ("0a", "0b"):
        with RunManifest(tmp_path) as manifest:
            assert len(set_aside_earlier_run(manifest)) == (uid == "0b")
            manifest.begin({}, uid)
    facts = read_manifest(tmp_path)
    [attempt] = facts["attempts"]
    assert facts["id"] == "0b"
    assert facts["outcome"]["wall_seconds"] == pytest.approx(attempt["end"] - attempt["start"])
    earlier = read_manifest(tmp_path / "earlier-0a")
    assert (earlier["id"], status_of(tmp_path / "earlier-0a"), len(earlier["attempts"])) == (
        "0a",
        "DONE",
        1,
    )


def test_an_attempt_refused_before_training_keeps_the_previous_status(tmp_path):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
        manifest.record({"best": 0.25})
    with pytest.raises(InputNotFoundError), RunManifest(tmp_path):
        raise InputNotFoundError("no such file")
    facts = read_manifest(tmp_path)
    assert status_of(tmp_path) == "DONE"
    assert facts["outcome"]["best"] == 0.25
    assert [attempt["status"] for attempt in facts["attempts"]] == ["DONE", "FAILED"]
    with suppress(RunInterrupted), RunManifest(tmp_path) as manifest:
        manifest.begin({})
        raise RunInterrupted("stopped", 15)
    assert status_of(tmp_path) == "PREEMPTED"
    with RunManifest(tmp_path):
        pass
    assert status_of(tmp_path) == "DONE"
    with pytest.raises(InputNotFoundError), RunManifest(tmp_path / "new"):
        raise InputNotFoundError("no such file")
    assert status_of(tmp_path / "new") == "FAILED"


def test_a_refused_attempt_leaves_a_killed_run_dead(tmp_path):
    dead = {
        "host": platform.node(),
        "pid": 1,
        "process_start": 0.0,
        "start": 1.0,
        "status": "RUNNING",
    }
    fields = {"format": 2, "id": "a" * 32, "name": "a", "status": "RUNNING", "attempts": [dead]}
    for inputs, expected in (({"inputs": {}}, "DEAD"), ({}, "FAILED")):
        (tmp_path / "manifest.json").write_text(json.dumps(fields | inputs))
        for count in (1, 2):  # the second one finds the status that the first one wrote
            manifest = RunManifest(tmp_path)
            with pytest.raises(InputNotFoundError), manifest:
                raise InputNotFoundError("no such file")
            assert (manifest.earlier and manifest.earlier["status"]) == (
                expected if inputs else None
            )
            assert status_of(tmp_path) == effective_status(tmp_path) == expected
            statuses = [attempt["status"] for attempt in read_manifest(tmp_path)["attempts"]]
            assert statuses == ["DEAD", *["FAILED"] * count]


@pytest.mark.parametrize("status", ["DONE", "PREEMPTED", "DEAD"])
@pytest.mark.parametrize("host", [platform.node(), "elsewhere"])
def test_a_refused_attempt_leaves_the_status_of_the_last_one_that_began(tmp_path, status, host):
    attempt = {"host": host, "pid": 1, "process_start": 0.0, "start": 1.0, "end": 2.0}
    trained = attempt | {"status": "RUNNING" if status == "DEAD" else status, "trained": True}
    killed = attempt | {"status": "RUNNING", "trained": False}
    fields = {
        "format": 2,
        "id": "a" * 32,
        "name": "a",
        "status": "RUNNING",
        "attempts": [trained, killed],
    }
    for outcome, expected in (
        ({"outcome": {}}, status),
        ({}, "DEAD"),
    ):  # killed before it began, or after
        (tmp_path / "manifest.json").write_text(json.dumps(fields | {"inputs": {}} | outcome))
        with pytest.raises(InputNotFoundError), RunManifest(tmp_path):
            raise InputNotFoundError("no such file")
        assert status_of(tmp_path) == effective_status(tmp_path) == expected
        manifest = read_manifest(tmp_path)
        assert "error" not in deciding_attempt(manifest["attempts"], manifest["status"])


def test_a_complete_manifest_exists_at_every_moment(tmp_path):
    code = """
import sys, pathlib
from mlxlab.experiment.manifest import RunManifest
while True:
    with RunManifest(pathlib.Path(sys.argv[1])) as manifest:
        manifest.begin({})
        manifest.record({"final": {str(i): i for i in range(300)}})
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        wait_for(tmp_path / "manifest.json", writer)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert read_manifest(tmp_path)["status"] in STATUSES
    finally:
        writer.kill()
        writer.wait()
    read_manifest(tmp_path)


def test_a_reused_process_id_does_not_make_a_dead_run_alive(tmp_path):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
        manifest.code(wait=30.0)  # the thread that asks git writes the file too
        facts = read_manifest(tmp_path)
        facts["attempts"][-1]["process_start"] -= 3600
        (tmp_path / "manifest.json").write_text(json.dumps(facts))
        assert effective_status(tmp_path) == "DEAD"
        facts["attempts"][-1]["host"] = "elsewhere"
        (tmp_path / "manifest.json").write_text(json.dumps(facts))
        assert effective_status(tmp_path) == "RUNNING"  # nobody here can tell


def test_a_missing_or_malformed_manifest_is_a_user_error(tmp_path):
    with pytest.raises(InputNotFoundError):
        read_manifest(tmp_path)
    for text in ("", "[]", "{}", '{"status": "TRAINING"}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(DataError):
            read_manifest(tmp_path)
    with RunManifest(tmp_path) as manifest:  # and no hindrance
        manifest.begin({})
    assert read_manifest(tmp_path)["status"] == "DONE"


def test_parents_are_the_runs_that_the_config_refers_to():
    options = asdict(NO_DISTILLATION) | {"teachers": ["runs/a", "runs/b"]}
    config = {
        "model": {"pretrained": "bert"},
        "trainer": {
            "distillation": options
            | {"_target_": "mlxlab.distillation.options.DistillationOptions"}
        },
        "data": {"select": {"source": "runs/c"}},
        "rerun": "runs/d",
    }
    assert [(p["kind"], p["of"]) for p in lineage(config, sweep="0a")] == [
        ("pretrained", "bert"),
        ("rerun", "runs/d"),
        ("teacher", "runs/a"),
        ("teacher", "runs/b"),
        ("selection", "runs/c"),
        ("sweep", "0a"),
    ]


def test_the_status_tells_runs_that_end_from_those_stopped_or_killed(tmp_path):
    done = run(*tiny_overrides("trainer.max_steps=5"), f"hydra.run.dir={tmp_path}/done")
    facts = read_manifest(tmp_path / "done")
    assert status_of(tmp_path / "done") == "DONE"
    assert final_state(done).startswith(f"final_state={facts['outcome']['final_state']} ")
    assert facts["outcome"]["steps"] == 5
    assert facts["outcome"]["best"] == facts["outcome"]["final"]["valid/loss"]
    assert facts["git"]["dirty"] in ("true", "false", "unknown")
    assert "trainer.max_steps=5" in facts["inputs"]["overrides"]
    assert len(facts["inputs"]["config_hash"]) == 64

    settings = [
        *tiny_overrides("trainer.max_steps=100000", "checkpointing.every_steps=2"),
        "resume=auto",
    ]
    attempts = [
        (settings, signal.SIGTERM, "PREEMPTED"),
        (["resume=auto"], signal.SIGKILL, "RUNNING"),
    ]
    for typed, number, status in attempts:
        process = start(*typed, f"hydra.run.dir={tmp_path}/stopped")
        wait_for(tmp_path / "stopped" / "STATUS.RUNNING", process)
        wait_for(
            tmp_path / "stopped" / "checkpoints", process
        )  # before, a signal ends the preparation
        wait_until_begun(tmp_path / "stopped", process)
        assert effective_status(tmp_path / "stopped") == "RUNNING"
        process.send_signal(number)
        process.communicate()
        assert status_of(tmp_path / "stopped") == status
    assert effective_status(tmp_path / "stopped") == "DEAD"
    assert not psutil.pid_exists(read_manifest(tmp_path / "stopped")["attempts"][-1]["pid"])
    assert len(read_manifest(tmp_path / "stopped")["attempts"]) == 2
    assert "trainer.max_steps=100000" in read_manifest(tmp_path / "stopped")["inputs"]["overrides"]


def wait_until_begun(folder, process):
    until = time.monotonic() + 60
    while (
        (facts := read_manifest(folder))["attempts"][-1]["pid"] != process.pid
        or "outcome" in facts
        or "inputs" not in facts
    ):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_error_found_before_training_leaves_no_run_folder(tmp_path):
    refused = run(*tiny_overrides("data.source=nowhere.csv"), f"hydra.run.dir={tmp_path}/run")
    assert (refused.returncode, refused.stderr.count("\n")) == (66, 1)
    assert list(tmp_path.iterdir()) == []


ATTEMPT = {"host": "h", "pid": 7, "process_start": 1.0, "start": 1.0, "status": "RUNNING"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", []),
        ("attempts", "x"),
        ("attempts", [ATTEMPT | {"end": "yesterday"}]),
        ("attempts", [ATTEMPT | {"pid": 2**70}]),
        ("attempts", [ATTEMPT | {"pid": -1}]),
        ("outcome", {"speed": "fast"}),
        ("outcome", []),
        ("inputs", {"seed": "one"}),
        ("status", "TRAINING"),
        ("format", 1),
        ("id", None),
    ],
    ids=str,
)
def test_a_damaged_manifest_is_one_line_and_a_new_run_replaces_it(tmp_path, field, value, caplog):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
        manifest.record({"best": 0.5})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    for read in (read_manifest, effective_status):
        with pytest.raises(DataError, match=rf"^{path}: [^\n]+$"):
            read(tmp_path)
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
    assert read_manifest(tmp_path)["status"] == "DONE"
    assert len(caplog.messages) == 1


def test_an_attempt_that_was_killed_ends_with_the_last_change_of_its_folder(tmp_path):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
    path = tmp_path / "manifest.json"
    killed = {
        "host": "here",
        "pid": 1,
        "process_start": 990.0,
        "start": 1000.0,
        "status": "RUNNING",
    }
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"attempts": [killed], "status": "RUNNING"})
    )
    for file in tmp_path.iterdir():
        os.utime(file, (1060.0, 1060.0))
    (tmp_path / "output.log").write_text("of the next attempt")
    with RunManifest(tmp_path):
        pass
    fields = read_manifest(tmp_path)
    assert (fields["attempts"][0]["end"], fields["attempts"][0]["status"]) == (1060.0, "DEAD")
    assert 60.0 <= fields["outcome"]["wall_seconds"] < 120.0


def test_an_attempt_without_its_process_is_shown_as_ended_before_the_next_one_begins(tmp_path):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
        running = with_ended_attempts(read_manifest(tmp_path), tmp_path)["attempts"]
        assert [("end" in each, each["status"]) for each in running] == [(False, "RUNNING")]
    path = tmp_path / "manifest.json"
    dead = {
        "host": platform.node(),
        "pid": os.getpid(),
        "process_start": 990.0,
        "start": 1000.0,
        "status": "RUNNING",
    }
    earlier = dead | {"end": 1005.0}  # as an earlier version closed it
    path.write_text(
        json.dumps(
            json.loads(path.read_text()) | {"attempts": [earlier, dead], "status": "RUNNING"}
        )
    )
    for file in tmp_path.iterdir():
        os.utime(file, (1060.0, 1060.0))
    (tmp_path / "report.html").write_text("of another command")
    ended = with_ended_attempts(read_manifest(tmp_path), tmp_path)["attempts"]
    assert [(each["end"], each["status"]) for each in ended] == [(1005.0, "DEAD"), (1060.0, "DEAD")]
    assert read_manifest(tmp_path)["attempts"][1] == dead, "nothing is written"


def test_a_resume_of_a_finished_run_is_no_attempt_and_changes_nothing(tmp_path, monkeypatch):
    with RunManifest(tmp_path) as manifest:
        manifest.begin({})
    before = read_manifest(tmp_path)
    monkeypatch.setattr(
        provenance, "git", lambda: {"mlflow.source.git.commit": "later", "git.dirty": "false"}
    )
    for _ in range(2):
        with RunManifest(tmp_path):
            pass
    assert read_manifest(tmp_path) == before
    with pytest.raises(InputNotFoundError), RunManifest(tmp_path):
        raise InputNotFoundError("no such file")
    after = read_manifest(tmp_path)
    assert after["outcome"] == before["outcome"]
    assert after["git"] == before["git"], "that of the code that trained"
    assert [each["trained"] for each in after["attempts"]] == [True, False]
    assert seconds_of(after["attempts"]) == pytest.approx(before["outcome"]["wall_seconds"])


@pytest.mark.parametrize("uid", ["/../../escaped", "../escaped", "", "a\nb"])
def test_an_earlier_run_of_a_stranger_moves_nowhere_but_into_the_folder(tmp_path, uid):
    folder = tmp_path / "run"
    with RunManifest(folder) as manifest:
        manifest.begin({})
    (folder / "earlier-").mkdir()  # on the way of a path in the id
    foreign = json.loads((folder / "manifest.json").read_text()) | {"id": uid}
    (folder / "manifest.json").write_text(json.dumps(foreign))
    with RunManifest(folder) as manifest:
        set_aside_earlier_run(manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert read_manifest(folder / "earlier-run")["id"] == uid
