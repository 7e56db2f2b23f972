"""What is typed for a run whose model has grown."""

from pathlib import Path

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.extensions.growth import resume
from support.checkpoints import state_at

CONFIG = {"model": {"num_layers": 2}, "data": {}}


def requested(monkeypatch, typed, before):
    monkeypatch.setattr(resume, "cli_overrides", lambda: typed)
    state = state_at(3)
    state["architecture"] = {"num_layers": 4}
    state["metadata"] |= {"config": CONFIG, "overrides": before}
    return resume.requested_against_growth(
        CONFIG, Checkpoint(Path("step-00000003"), 3, {}, {}, state)
    )


def test_a_key_that_was_typed_before_the_model_grew_asks_for_nothing(monkeypatch):
    typed = ["model.num_layers=2", "trainer.epochs=3"]
    assert requested(monkeypatch, typed, typed) == {}
    assert requested(monkeypatch, typed[1:], []) == {}
    assert requested(monkeypatch, typed, []) == {"model.num_layers": (4, 2)}
