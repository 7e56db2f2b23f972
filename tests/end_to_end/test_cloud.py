"""A run that copies its checkpoints to an object store does not notice its faults, and continues from the copies."""

from datetime import timedelta

import pytest

from mlxlab.extensions.cloud import object_store
from mlxlab.run.storage import open_address
from support.object_stores.emulators import emulator
from support.processes import final_state, run_here, succeed_here, tiny_overrides

pytest.importorskip("obstore", reason="obstore is not installed: pip install 'mlxlab[cloud]'")

RUN = tiny_overrides(
    "trainer.max_steps=6", "trainer.eval_every=3", "checkpointing.every_steps=2", "seed=5"
)
CHEAP = ["data.source=synthetic", "data.templates=[basic]", "data.augment.copies=1"]


def test_a_run_resumes_bitwise_from_the_store_alone_though_a_third_of_the_requests_fail(
    tmp_path, monkeypatch
):
    backoff = {
        "init_backoff": timedelta(milliseconds=1),
        "max_backoff": timedelta(milliseconds=20),
        "base": 2,
    }
    monkeypatch.setattr(object_store, "RETRY", object_store.RETRY | {"backoff": backoff})
    with emulator("gcs") as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        service.proxy.fail_share(0.3, ["503", "500", "lost", "unanswered", "half"], seed=2)
        done = succeed_here(
            *RUN, *CHEAP, *service.overrides("runs"), f"hydra.run.dir={tmp_path}/run"
        )
        cloud = open_address(f"{service.address}/runs", {})
        (run,) = cloud.store.list("runs").folders
        oldest, *_, newest = cloud.commits(run.removeprefix("runs/")).names()
        assert newest == "step-00000006"
        resumed = run_here(
            f"resume={service.address}/{run}/{oldest}", f"hydra.run.dir={tmp_path}/empty"
        )
    assert f"resumed from {oldest}" in resumed.stderr
    assert final_state(resumed) == final_state(done)
