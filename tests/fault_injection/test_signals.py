"""Signals at random instants of every phase: the right exit code and status, and the same end after a resume.

A signal that comes before the listener is there does what it does to any program; then nothing has begun, and nothing
may be lost either.
"""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.fault_injection.harness import (
    MODELS,
    Attempt,
    ForkServer,
    Reference,
    assert_same_metrics,
    final_state,
    read_metrics,
    reference,
    rng_for,
    settings,
    tracked,
    train,
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
PHASES = {"data": 1, "training": 1, "evaluation": 4, "save": 20, "retention": 15}
PHASES |= {"tracking": 40, "report": 1}
SLOW = 0.05  # seconds before each of three batches of an evaluation


def statuses(folder: Path) -> list[str]:
    """What the journal says of the ends of a run, oldest first."""
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    records = [json.loads(line) for line in lines]
    return [record["end"] for record in records if "end" in record]


def check_end(number: int, code: int | None, begun: bool, over: bool, ended: list[str]) -> None:
    """The exit code and the status must fit the signal, and each other.

    Args:
        begun: the listener was there when the signal came.
        over: the training was, so that there was nothing left to stop.
        ended: the statuses in the journal.
    """
    if over and code == -number:
        assert ended[-1:] == ["FINISHED"]  # Only the interpreter was still to end.
    elif not begun:
        assert code in (-number, 128 + number), code  # a shell says 128 + number for both
    elif number == signal.SIGUSR1:
        assert (code, ended[-1:]) == (0, ["FINISHED"])
    elif code == 0:
        assert over
        assert ended[-1:] == ["FINISHED"]
    else:
        assert code == 128 + number
        assert ended[-1:] in (["KILLED"], [])  # none where the signal came before the journal


def wait_for_random_instant(attempt: Attempt, expected: Reference, rng: random.Random) -> None:
    """Waits for the instant of the signal."""
    if rng.random() < 0.3:
        attempt.wait(rng.uniform(0.0, expected.seconds))
        return
    phase = rng.choice(list(PHASES))
    if attempt.wait_for(phase, rng.randint(1, max(1, PHASES[phase] // 2))):
        attempt.wait(rng.uniform(0.0, 0.05))


def assert_resumes(server: ForkServer, argv: list[str], folder: Path, expected: Reference) -> None:
    """What was stopped goes on, and ends as if nothing had been."""
    done = server.run(argv, syncer=False)
    assert done.final_state() == expected.final_state
    assert_same_metrics(read_metrics(folder / "journal.jsonl"), expected.metrics)
    assert statuses(folder)[-1] == "FINISHED"


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.fault_injection)])
def test_a_signal_at_any_instant_stops_cleanly_and_loses_nothing(shared_server, tmp_path, count):
    server, rng = shared_server, rng_for("signals")
    references = {}
    for number in range(count):
        model, signum = list(MODELS)[number % (3 if count > 10 else 1)], SIGNALS[number % 4]
        depth = 2 * (number % 2) if count > 10 else 2
        argv = settings(model, f"data.prefetch={depth}", *tracked(tmp_path / "project"))
        key = model, depth
        if key not in references:
            references[key] = reference(server, argv, tmp_path / f"reference-{model}-{depth}")
        here = [*argv, f"hydra.run.dir={tmp_path}/{number}"]
        attempt = server.start(here, syncer=False, slow=SLOW)
        wait_for_random_instant(attempt, references[key], rng)
        phase = attempt.phase
        if not attempt.send(signum):
            phase = "over"
        attempt.finish()
        over = phase in ("report", "end", "over") or "final_state" in attempt.out
        over = over or "step 40/40" in attempt.err or "training has ended" in attempt.err
        begun = phase != "start" or attempt.returncode not in (-signum, 128 + signum)
        check_end(signum, attempt.returncode, begun, over, statuses(tmp_path / str(number)))
        assert phase == "start" or "Traceback" not in attempt.err, attempt.err
        if attempt.returncode == 0:
            assert final_state(attempt.out) == references[key].final_state
        else:
            assert_resumes(server, here, tmp_path / str(number), references[key])


@pytest.mark.fault_injection
def test_a_signal_to_the_process_that_a_user_starts(shared_server, tmp_path):
    """From the first instant of the interpreter on: the imports are most of a short run."""
    rng = rng_for("signals to processes")
    argv = settings("bert", *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    for number in range(12):
        here, signum = [*argv, f"hydra.run.dir={tmp_path}/{number}"], SIGNALS[number % 4]
        process = train(*here)
        try:
            process.wait(rng.uniform(0.0, 2.5))
            early = False
        except subprocess.TimeoutExpired:
            early = not (tmp_path / str(number) / ".lock").exists()
            process.send_signal(signum)
        out, err = process.communicate(timeout=120)
        begun = not early or process.returncode not in (-signum, 128 + signum)
        ended = statuses(tmp_path / str(number))
        check_end(signum, process.returncode, begun, "final_state" in out, ended)
        assert early or "Traceback" not in err, err
        if process.returncode == 0:
            assert final_state(out) == expected.final_state
        else:
            assert_resumes(shared_server, here, tmp_path / str(number), expected)


@pytest.mark.parametrize("count", [1, pytest.param(30, marks=pytest.mark.fault_injection)])
def test_a_signal_after_the_end_of_the_run_does_not_change_its_exit_code(
    shared_server, tmp_path, count
):
    rng = rng_for("signals at the end")
    for number in range(count):
        argv = settings("bert", "trainer.max_steps=2", f"hydra.run.dir={tmp_path}/{number}")
        attempt = shared_server.start(argv)
        assert attempt.wait_for("end")
        attempt.wait(rng.uniform(0.0, 0.02))
        attempt.send(SIGNALS[number % 3])
        attempt.finish()
        assert attempt.returncode == 0, attempt.err
        assert (tmp_path / str(number) / "STATUS.finished").exists()


@pytest.mark.fault_injection
def test_a_signal_during_a_long_evaluation_is_handled_within_a_second(shared_server, tmp_path):
    """A batch takes 0.3 s and an evaluation 20: it is left at the next batch, and made after the resume."""
    argv = settings("bert", "data.eval_batch_size=2", *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    here = [*argv, f"hydra.run.dir={tmp_path}/run"]
    attempt = shared_server.start(here, syncer=False, slow=0.3)
    assert attempt.wait_for("evaluation")
    attempt.wait(1.0)
    sent = time.monotonic()
    attempt.send(signal.SIGTERM)
    while "SIGTERM: finishing the current step" not in attempt.err:
        assert time.monotonic() - sent < 5, "not noticed"
        time.sleep(0.01)
    attempt.finish(15)
    assert attempt.returncode == 143
    assert_resumes(shared_server, here, tmp_path / "run", expected)


@pytest.mark.fault_injection
def test_a_second_interrupt_ends_immediately_and_loses_nothing(shared_server, tmp_path):
    argv = settings("bert", *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    here = [*argv, f"hydra.run.dir={tmp_path}/run"]
    attempt = shared_server.start(here, syncer=False, slow=2.0)
    assert attempt.wait_for("evaluation", 2)
    attempt.send(signal.SIGINT)
    while "SIGINT" not in attempt.err:
        assert not attempt.wait(0.01)
    attempt.send(signal.SIGINT)
    attempt.finish(5)
    assert attempt.returncode == 130
    assert f"hydra.run.dir={tmp_path}/run resume=auto" in attempt.err
    assert_resumes(shared_server, here, tmp_path / "run", expected)
