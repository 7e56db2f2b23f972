"""What is typed for a run whose model has grown."""

from pathlib import Path

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.extensions.growth.resume import requests
from support.checkpoints import state_at

CONFIG = {"model": {"num_layers": 2}, "data": {}}


def request(monkeypatch, typed, before):
    monkeypatch.setattr(requests, "cli_overrides", lambda: typed)
    state = state_at(3)
    state["architecture"] = {"num_layers": 4}
    state["metadata"] |= {"config": CONFIG, "overrides": before}
    return requests.requests_against_growth(
        CONFIG, Checkpoint(Path("step-00000003"), 3, {}, {}, state)
    )


def test_a_key_that_was_typed_before_the_model_grew_asks_for_nothing(monkeypatch):
    typed = ["model.num_layers=2", "trainer.epochs=3"]
    repeated = request(monkeypatch, typed, typed)
    assert repeated.changes == {}
    assert repeated.lines() == [
        "model.num_layers=2 was typed for this run before, and is 4 by now: it stays so"
    ]
    assert request(monkeypatch, typed[1:], []).lines() == []
    assert request(monkeypatch, typed, []).changes == {"model.num_layers": (4, 2)}
