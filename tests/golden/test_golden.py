"""A golden case, and what makes the comparison worth believing. `python -m tests.golden` runs all cases."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.golden import run
from tests.golden.__main__ import compare, main
from tests.golden.cases import CASES
from tests.golden.outcome import Outcome, differences, digest_safetensors
from tests.golden.reference import ROOT, References, has_commit, has_full_history
from tests.golden.run import Runner

CASE = {case.name: case for case in CASES}
QUICK = "decoder_streaming"
needs_history = pytest.mark.skipif(
    not has_commit(CASE[QUICK].reference),
    reason="the reference commit is not in the history of this checkout",
)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return References(tmp_path_factory.mktemp("references"))


@needs_history
def test_a_run_equals_that_of_its_reference_commit(references, tmp_path):
    expected = references.outcome(CASE[QUICK])
    outcome = Runner(ROOT, tmp_path / "present").run(CASE[QUICK], expected.settings)
    assert differences(expected, outcome) == []
    assert list(outcome.losses["train/loss"]) == [str(step) for step in range(1, 21)]
    assert list(outcome.losses["valid/loss"]) == ["10", "20"]
    assert {name.split("/")[0] for name in outcome.arrays} == {"model", "optimizer"}


@pytest.mark.slow
@needs_history
def test_a_case_with_another_seed_differs_and_is_named(references, tmp_path, monkeypatch, capsys):
    case = CASE[QUICK]
    expected = references.outcome(case)
    monkeypatch.setattr(References, "outcome", lambda self, case: expected)
    reseeded = replace(case, overrides=f"{case.overrides} seed=1")
    assert compare([reseeded], ROOT, tmp_path) == 1
    output = capsys.readouterr().out
    assert output.startswith("decoder_streaming ")
    assert "train/loss: from step 1," in output
    assert "model/backbone.layers.0." in output
    assert "optimizer: " in output


@pytest.mark.slow
@needs_history
def test_another_default_does_not_change_a_case(references, tmp_path):
    case = CASE[QUICK]
    checkout = tmp_path / "checkout"
    for name in ("conf", "scripts", "src"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    trainer = checkout / "conf" / "trainer" / "simple.yaml"
    text = trainer.read_text()
    changed = text.replace("learning_rate: 3e-4", "learning_rate: 9e-4")
    changed = changed.replace("schedule: cosine", "schedule: constant")
    assert len(changed.splitlines()) == len(text.splitlines())
    assert changed.count("9e-4") == changed.count("constant") == 1
    trainer.write_text(changed)
    expected = references.outcome(case)
    outcome = Runner(checkout, tmp_path / "present").run(case, expected.settings)
    assert differences(expected, outcome) == []


def test_a_different_array_is_named(tmp_path):
    weights = {"a": np.zeros(3, np.float32), "b": np.zeros((2, 2), np.float32)}
    save_file(weights, tmp_path / "before")
    weights["b"][1, 1] = 1e-30
    weights["c"] = np.zeros(1, np.int8)
    save_file(weights, tmp_path / "after")
    before, after = (outcome_of(tmp_path / name) for name in ("before", "after"))
    assert differences(before, before) == []
    assert differences(before, after) == ["model: 2 of 3 arrays: model/b, model/c"]


def outcome_of(path):
    digests = digest_safetensors(path)
    arrays = {f"model/{name}": digest for name, digest in digests.items()}
    return Outcome([], {"train/loss": {}, "valid/loss": {}}, arrays)


def test_keys_move_to_their_present_names(monkeypatch):
    monkeypatch.setattr(run, "RENAMED", {"model/peft": "model/adapter", "fit.rate": "trainer.rate"})
    monkeypatch.setattr(run, "REMOVED", {"trainer.old"})
    assert run.rename_override("trainer.rate=3") == "fit.rate=3"
    assert run.rename_override("~trainer.rate.end") == "~fit.rate.end"
    assert run.rename_override("model/adapter=lora") == "model/peft=lora"
    assert run.rename_override("trainer.rates=[a=b]") == "trainer.rates=[a=b]"
    config = "{trainer: {_target_: a.B, rate: {end: 1}, old: 2, new: 3, name: '${seed}'}, seed: 0}"
    assert run.pinned_values(config) == {
        "trainer": {"new": 3, "name": "${seed}"},
        "fit": {"rate": {"end": 1}},
        "seed": 0,
    }


@pytest.mark.skipif(not has_full_history(), reason="no git history, or that of a shallow clone")
def test_every_reference_is_in_the_history():
    assert len(CASE) == len(CASES)
    references = {case.reference for case in CASES}
    assert [commit for commit in references if not has_commit(commit)] == []


@pytest.mark.parametrize("arg", ["only=bert", "onyl=bert_table"])
def test_a_wrong_argument_is_refused(arg, capsys):
    assert main([arg]) == 2
    assert "bert_table" in capsys.readouterr().out
