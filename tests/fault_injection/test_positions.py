"""Every place of a run is one to go on from, once or again and again; and no clock is trusted."""

import signal

import pytest

from support.fault_injection.harness import (
    MODELS,
    ForkServer,
    Reference,
    assert_same_metrics,
    assert_tidy,
    read_metrics,
    reference,
    rng_for,
    settings,
    tracked,
)

EPOCH = 12  # batches of 64 in 713 rows: the last one is short
SCHEDULE = """data.batch_size=64 trainer.max_steps=null trainer.epochs=2 trainer.eval_every=5
trainer.log_every=7 checkpointing.every_steps=4"""


@pytest.fixture(scope="module", params=[0, 2], ids=["prefetch_off", "prefetch_on"])
def two_epochs(request, shared_server: ForkServer, tmp_path_factory) -> tuple[list[str], Reference]:
    """24 steps; evaluations, saves and log lines fall on different ones, and not all on the last."""
    folder = tmp_path_factory.mktemp("positions")
    changes = [*tracked(folder / "project"), f"data.prefetch={request.param}", *SCHEDULE.split()]
    argv = settings("bert", *changes)
    expected = reference(shared_server, argv, folder / "run")
    assert max(step for _, step in expected.metrics) == 2 * EPOCH
    return argv, expected


STEPS = [
    pytest.param(step, marks=[] if step == EPOCH else [pytest.mark.fault_injection])
    for step in range(2 * EPOCH + 1)
]


@pytest.mark.parametrize("step", STEPS)
def test_resume_works_from_every_position_in_an_epoch(shared_server, tmp_path, two_epochs, step):
    argv, expected = two_epochs
    here = [*argv, f"hydra.run.dir={tmp_path}"]
    stopped = shared_server.run(here, syncer=False, stop=step)
    assert stopped.returncode == 143, stopped.err
    assert f"stopped at step {step} and saved" in stopped.err
    done = shared_server.run(here, syncer=False)
    assert f"resumed from step-{step:08d}" in done.err
    assert done.final_state() == expected.final_state
    assert_same_metrics(read_metrics(tmp_path / "journal.jsonl"), expected.metrics)
    assert_tidy(tmp_path)


@pytest.mark.fault_injection
@pytest.mark.parametrize("model", MODELS)
def test_clocks_that_jump_change_nothing(shared_server, tmp_path, model):
    """Up to a day, both ways, at every look: the newest is the one of the highest step."""
    argv = settings(model, *tracked(tmp_path / "project"))
    expected = reference(shared_server, argv, tmp_path / "reference")
    here, rng = [*argv, f"hydra.run.dir={tmp_path}/run"], rng_for("clock", model)
    for number in range(3):
        attempt = shared_server.start(here, syncer=False, jump=number)
        if number < 2:
            assert attempt.wait_for("save", rng.randint(2, 6))
            attempt.send(signal.SIGKILL)
        attempt.finish()
    assert attempt.final_state() == expected.final_state
    assert_same_metrics(read_metrics(tmp_path / "run" / "journal.jsonl"), expected.metrics)
    assert_tidy(tmp_path / "run")
