"""Whole runs on a hub that fails: killed at random steps, they end in the state of the one that went through."""

import random

import pytest

from support.hub_reading import new_hub
from support.processes import TINY, final_state, run, start, wait_for

pytestmark = pytest.mark.fault_injection
OTHERS = ("trainer.", "callbacks.", "checkpointing.", "data.prefetch", "data.baselines")
TEXT = """model=transformer data=streaming data.tokenizer.vocab_size=300 data.seq_len=32
data.shuffle.window=50 trainer.epochs=null trainer.max_steps=40 trainer.eval_every=20
trainer.schedule.warmup=0 checkpointing.every_steps=2"""
SETTINGS = [*(each for each in TINY if not each.startswith(OTHERS)), *TEXT.split()]


def test_killed_runs_on_a_failing_hub_end_in_the_same_state(tmp_path):
    hub = new_hub()
    reach = {"HF_ENDPOINT": hub.url, "HF_HOME": f"{tmp_path}/home"}
    reach["HF_HUB_DISABLE_TELEMETRY"] = "1"
    whole = run(*SETTINGS, f"hydra.run.dir={tmp_path / 'whole'}", **reach)
    assert whole.returncode == 0, whole.stderr
    draw = random.Random(0)
    again = [*SETTINGS, f"hydra.run.dir={tmp_path / 'killed'}", "resume=auto"]
    for step in sorted(draw.sample(range(4, 38, 2), 3)):
        hub.faults = []
        for _ in range(6):
            hub.faults += [draw.choice(["503", "cut"]), draw.choice(["", "503"]), ""]
        process = start(*again, f"data.prefetch={step % 3}", **reach)
        wait_for(tmp_path / "killed" / "checkpoints" / f"step-{step:08}", process)
        process.kill()
        process.communicate()
    hub.faults = ["503", "cut"]
    ended = run(*again, **reach)
    assert final_state(ended) == final_state(whole)
