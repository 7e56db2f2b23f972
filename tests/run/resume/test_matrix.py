"""Commands that resume runs of each form with each change: what is carried over, that outputs stay, that it trains."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.inference.restore import restore_model
from support.lines import LINES
from support.processes import succeed, succeed_here, tiny_overrides

SETTINGS = tiny_overrides("model=transformer", "model.num_layers=2", "model.intermediate_size=64")
SETTINGS += ["data=streaming", "data/tokenizer=characters", "data.seq_len=8", "data.batch_size=2"]
SETTINGS += ["data.valid_fraction=0.3", "trainer.max_steps=2", "trainer.eval_every=2"]
SETTINGS += ["trainer.eval_batches=1", "trainer.learning_rate=0.01"]
SETTINGS.remove("data.baselines=false")
TOKENS = mx.array([[3, 5, 7, 9, 2, 1]])
FORMS = {
    "plain": [],
    "lora": ["model/adapter=lora", "model.adapter.rank=2"],
    "qlora": ["model/adapter=qlora", "model.adapter.rank=2", "model.quantization.group_size=32"],
}
CHANGES = {  # what is typed
    "same": [],
    "wider": ["model.intermediate_size=96"],
    "deeper": ["model.num_layers=3"],
    "rate": ["trainer.learning_rate=0.02"],
    "prefixed": [],
}
NEW_KEYS = {"wider": {"intermediate_size": 96}, "deeper": {"num_layers": 3}}  # of the architecture
NOTHING = ({}, {})
REPORTS = {  # (weights, optimizer state), as in `transfer.json`
    ("plain", "same"): NOTHING,
    ("plain", "wider"): ({"matched": 14, "grown": 6}, {"by path": 14, "by map": 6}),
    ("plain", "deeper"): ({"matched": 11, "grown": 18}, {"by path": 11, "by map": 16, "fresh": 2}),
    ("plain", "rate"): NOTHING,
    ("plain", "prefixed"): ({"renamed": 20}, {"by map": 20}),
    ("lora", "same"): NOTHING,
    ("lora", "wider"): ({"matched": 36, "grown": 12}, {"by path": 22, "by map": 6}),
    ("lora", "deeper"): ({"matched": 25, "grown": 46}, {"by path": 14, "by map": 26, "fresh": 2}),
    ("lora", "rate"): NOTHING,
    ("qlora", "same"): NOTHING,
    ("qlora", "deeper"): ({"matched": 41, "grown": 74}, {"by path": 14, "by map": 26, "fresh": 2}),
    ("qlora", "rate"): NOTHING,
    ("qlora", "prefixed"): ({"renamed": 78}, {"by map": 28}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of two steps of each form."""
    folder = tmp_path_factory.mktemp("runs")
    text = "".join(f'{{"text": "{line}"}}\n' for line in LINES)
    (folder / "lines.jsonl").write_text(text, encoding="utf-8")
    source = f"data.source={folder}/lines.jsonl"
    for form, typed in FORMS.items():
        succeed_here(*SETTINGS, *typed, source, f"hydra.run.dir={folder}/{form}")
    return folder


def prefix_names(folder):
    """Gives the arrays of the last checkpoint of a run the names that they have in a compiled and wrapped model."""
    store = CheckpointStore(folder / "checkpoints")
    last = store.load()
    new = ("backbone.", "_orig_mod.module.backbone.", 1)
    weights, optimizer = (
        {name.replace(*new): array for name, array in arrays.items()}
        for arrays in (last.weights, last.optimizer)
    )
    store.save(last.step, weights, optimizer, last.state, best_step=last.step)


def logits(folder, step):
    model = restore_model(folder, f"step-{step}").model
    return np.array(model(TOKENS, mx.ones_like(TOKENS)))


def counts(folder):
    """Numbers of arrays by what became of them; two empty ones where the checkpoint was taken as it is."""
    file = folder / "transfer.json"
    records = json.loads(file.read_text()) if file.is_file() else [{"weights": {}, "optimizer": {}}]
    assert len(records) == 1
    return tuple(
        {kind: len(names) for kind, names in records[0][key].items() if names}
        for key in ("weights", "optimizer")
    )


def check_end(folder, before, change):
    """The run has trained two more steps, and its architecture is the one before with what was typed, and no more."""
    old, new = (CheckpointStore(each / "checkpoints").load().state for each in (before, folder))
    assert (new["progress"].step, new["progress"].nonfinite_steps) == (4, 0)
    assert np.isfinite(new["history"].best)
    assert new["architecture"] == old["architecture"] | NEW_KEYS.get(change, {})
    assert new["vocab_size"] == old["vocab_size"]
    rate = 0.02 if change == "rate" else 0.01
    assert new["metadata"]["config"]["trainer"]["learning_rate"] == rate


@pytest.mark.parametrize(("form", "change"), REPORTS)
def test_a_command_resumes_a_run_with_another_model(runs, tmp_path, form, change):
    source, fork = runs / form, tmp_path / "fork"
    if change == "prefixed":
        source = shutil.copytree(source, tmp_path / "prefixed")
        prefix_names(source)
    typed = CHANGES[change]
    target = ["trainer.max_steps=4", f"hydra.run.dir={fork}"]
    resumed = succeed_here(f"resume={source}", *typed, *target)
    assert counts(fork) == REPORTS[form, change]
    reported = "weights of step-00000002: " in resumed.stderr
    assert reported == (REPORTS[form, change] != NOTHING)
    before = logits(runs / form, 2)
    # A fork begins with the checkpoint for its model.
    after = logits(fork, 2)[..., : before.shape[-1]]
    np.testing.assert_allclose(after, before, atol=2e-5)
    check_end(fork, runs / form, change)


def test_a_run_resumed_by_its_name_in_a_process_of_its_own_continues_in_its_folder(runs, tmp_path):
    folder = shutil.copytree(runs / "lora", tmp_path / "run")
    succeed(f"resume={folder}", "model.num_layers=3", "trainer.max_steps=4")
    assert counts(folder) == REPORTS["lora", "deeper"]
    check_end(folder, runs / "lora", "deeper")
