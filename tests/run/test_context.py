"""The first line of a run."""

import pytest

from mlxlab.run.context import announce, run_name, tracked_name
from mlxlab.run.writer import RunWriter
from support.run_records import blank_record

CFG = {"name": None, "model": {"pretrained": None}}


def test_the_first_line_of_a_resume_names_the_run_that_continues(tmp_path, monkeypatch):
    with RunWriter(tmp_path) as writer:
        writer.begin(blank_record(name="mine"))
    shown = []
    monkeypatch.setattr("mlxlab.config.hydra.job.group_choices", dict)
    monkeypatch.setattr("mlxlab.terminal.messages.announce", shown.append)
    for changes in ({"resume": "auto"}, {"resume": None}, {"resume": "auto", "name": "other"}):
        announce(CFG | changes, tmp_path)
    assert [text.partition(" in ")[0] for text in shown] == ["mine", tmp_path.name, "other"]


LOADED = [{"pretrained": "minilm"}, {"init_from": "outputs/x"}]


@pytest.mark.parametrize(
    ("model", "name"), [({}, "bert-nano-titanic"), *((node, "bert-titanic") for node in LOADED)]
)
def test_a_run_is_named_by_its_options_without_the_size_of_loaded_weights(tmp_path, model, name):
    choices = {"data": "titanic", "model": "bert", "model/size": "nano"}
    assert run_name(CFG | {"model": model}, choices, tmp_path) == name
    assert run_name(CFG | {"model": model}, {}, tmp_path / "mine") == "mine"


def test_the_name_in_a_store_says_what_was_overridden():
    overrides = ["experiment=titanic", "trainer.epochs=2", "seed=3", "data.source=/data/x.csv"]
    overrides += ["tracking.experiment=mine", "hydra.run.dir=here"]
    assert tracked_name("bert", overrides) == "bert epochs=2 seed=3"
    assert len(tracked_name("bert", ["model.name=" + "x" * 1000])) == 120
