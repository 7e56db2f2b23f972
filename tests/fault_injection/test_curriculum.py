"""kill -9 in the middle of a curriculum: the run continues and ends in the state of the undisturbed one."""

import signal

import pytest

from support.fault_injection.harness import (
    SEED,
    ForkServer,
    assert_same_metrics,
    read_metrics,
    reference,
    rng_for,
    settings,
    tracked,
)

TITANIC = ("data.baselines", "data.templates", "data.augment")
CURRICULUM = """data=streaming data/order=curriculum data.order.alpha=[[0,1.0],[0.5,0.2]]
data.order.pool=50 data.order.rescore_every=3 data.tokenizer.vocab_size=300 data.seq_len=32
data.valid_fraction=0.2 trainer.epochs=null checkpointing.every_steps=1"""
LATEST_KILL = 8  # saves of an attempt


def arguments(corpus, project, model, max_steps, *overrides):
    text = [f"data.source={corpus}", f"trainer.max_steps={max_steps}"]
    argv = settings(model, *CURRICULUM.split(), *text, *tracked(project), *overrides)
    return [setting for setting in argv if not setting.startswith(TITANIC)]


SLOW = [(model, prefetch, 8) for model in ("transformer", "bert") for prefetch in (0, 2)]
SLOW = [pytest.param(*case, marks=pytest.mark.fault_injection) for case in SLOW]


@pytest.mark.parametrize(("model", "prefetch", "kills"), [("transformer", 2, 1), *SLOW])
def test_a_curriculum_killed_anywhere_ends_in_the_same_state(
    shared_server: ForkServer, corpus, tmp_path, summarize, model, prefetch, kills
):
    max_steps = LATEST_KILL * kills + 4  # No attempt that is killed reaches the end.
    argv = arguments(corpus, tmp_path / "project", model, max_steps, f"data.prefetch={prefetch}")
    expected = reference(shared_server, argv, tmp_path / "reference")
    logged = {name for name, _ in expected.metrics}
    assert {"data/kl_target", "data/rare_coverage", "data/curriculum_alpha"} <= logged
    values = expected.metrics.items()
    assert {each for (name, _), each in values if name == "data/curriculum_alpha"} == {1.0, 0.2}
    here, rng = [*argv, f"hydra.run.dir={tmp_path}/run"], rng_for("curriculum", model, prefetch)
    for _ in range(kills):
        attempt = shared_server.start(here, syncer=False)
        if attempt.wait_for("save", rng.randint(2, LATEST_KILL)):
            attempt.send(signal.SIGKILL)
        attempt.finish()
    streamed = "data.streaming=false" if kills % 2 else "data.streaming=true"
    done = shared_server.run([*here, streamed], syncer=False)
    assert "resumed from step-" in done.err
    assert done.final_state() == expected.final_state
    assert_same_metrics(read_metrics(tmp_path / "run" / "journal.jsonl"), expected.metrics)
    summarize(f"{kills} kills in a curriculum of {model}: bitwise equal (seed {SEED})")
