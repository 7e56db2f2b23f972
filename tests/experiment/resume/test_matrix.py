"""Runs of each form resumed into each change: what is carried over, that outputs stay, and that training continues."""

from copy import deepcopy
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.config.hydra.compose import Composer
from mlxlab.config.paths import conf_dir
from mlxlab.config.resume_overrides import Changes
from mlxlab.experiment.build import save_inference_config
from mlxlab.experiment.metadata import run_metadata
from mlxlab.experiment.resume.vocabulary import larger_tokenizer
from mlxlab.experiment.session import start_session
from mlxlab.experiment.start import Start, start_from
from mlxlab.training.checkpointer import Checkpointer
from support.vocabulary import LINES

OVERRIDES = [
    *("model=transformer", "model.hidden_size=32", "model.num_layers=2", "model.num_heads=2"),
    *("model.intermediate_size=64", "model.quantization.group_size=32", "model/adapter=lora", "model.adapter.rank=2"),
    *("data=streaming", "data/tokenizer=characters", "data.seq_len=8", "data.batch_size=2", "data.prefetch=0"),
    *("trainer.max_steps=2", "trainer.eval_every=2", "trainer.eval_batches=1", "trainer.learning_rate=0.01"),
    *("tracking=none", "data.validation.fraction=0.3"),
]
TOKENS = mx.array([[3, 5, 7, 9, 2, 1]])
FORMS = {"plain": (None, None), "lora": ("lora", None), "qlora": ("lora", 4)}  # adapter, bits
CHANGES = {
    "same": {},
    "wider": {"model.intermediate_size": 96},
    "deeper": {"model.num_layers": 3},
    "vocabulary": {"data.tokenizer.path": "larger"},
    "rate": {"trainer.learning_rate": 0.02},
    "prefixed": {},
}


def changed(cfg, **values):
    """A config with other values at dotted keys."""
    result = deepcopy(cfg)
    for key, value in values.items():
        *parents, name = key.split(".")
        node = result
        for parent in parents:
            node = node[parent]
        node[name] = value
    return result


def begin(start, folder):
    """(session, state, checkpoint, what was carried over) of a run in a folder."""
    session, state, checkpoint, carried = start_session(start, folder)
    save_inference_config(start.cfg, session.data, folder / "inference")
    session.context.metadata.update(run_metadata(start.cfg, session.data, session.teachers, None, None))
    return session, state, checkpoint, carried


def counts(carried):
    """Numbers of arrays by what became of them; two empty ones where the checkpoint was taken as it is."""
    reports = () if carried is None else (carried.report, carried.optimizer)
    return tuple({kind: len(names) for kind, names in each.as_json().items() if names} for each in reports) or ({}, {})


def logits(state):
    state.model.eval()
    return np.array(state.model(TOKENS, mx.ones_like(TOKENS)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Form -> (checkpoint at step 2, its logits)."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "lines.jsonl").write_text("".join(f'{{"text": "{line}"}}\n' for line in LINES), encoding="utf-8")
    composer = Composer(conf_dir(), [*OVERRIDES, f"data.source={folder}/lines.jsonl"])
    cfg = composer.checked_values(resolve=True)
    result = {}
    for form, (adapter, bits) in FORMS.items():
        own = changed(cfg, **{"model.quantization.bits": bits} | ({} if adapter else {"model.adapter": None}))
        session, state, *_ = begin(Start(own, Changes(), None, False, None, None), folder / form)
        session.fit(state, [], Checkpointer(None, 2, False, folder=folder / form))
        result[form] = CheckpointStore(folder / form / "checkpoints").load(), logits(state)
    tokenizer = deepcopy(session.data.tokenizer.inner)
    tokenizer.add_tokens(["zebra", "zz"])
    (folder / "larger").mkdir()
    tokenizer.save(str(folder / "larger" / "tokenizer.json"))
    return result


def prefixed(arrays):
    """The arrays by the names that they have in a compiled and wrapped model."""
    return {name.replace("backbone.", "_orig_mod.module.backbone.", 1): array for name, array in arrays.items()}


REQUANTISED = ("qlora", "wider")  # its new columns are in groups with others
NOTHING = ({}, {})
REPORTS = {  # (weights, optimizer state), as in `transfer.json`
    ("plain", "same"): NOTHING,
    ("plain", "wider"): ({"matched": 14, "grown": 6}, {"by path": 14, "by map": 6}),
    ("plain", "deeper"): ({"matched": 11, "grown": 18}, {"by path": 11, "by map": 16, "fresh": 2}),
    ("plain", "vocabulary"): ({"matched": 19, "grown": 1}, {"by path": 19, "by map": 1}),
    ("plain", "rate"): NOTHING,
    ("plain", "prefixed"): ({"renamed": 20}, {"by map": 20}),
    ("lora", "same"): NOTHING,
    ("lora", "wider"): ({"matched": 36, "grown": 12}, {"by path": 22, "by map": 6}),
    ("lora", "deeper"): ({"matched": 25, "grown": 46}, {"by path": 14, "by map": 26, "fresh": 2}),
    ("lora", "vocabulary"): ({"matched": 47, "grown": 1}, {"by path": 28}),
    ("lora", "rate"): NOTHING,
    ("lora", "prefixed"): ({"renamed": 48}, {"by map": 28}),
    ("qlora", "same"): NOTHING,
    ("qlora", "wider"): ({"matched": 54, "grown": 24}, {"by path": 22, "by map": 6}),
    ("qlora", "deeper"): ({"matched": 41, "grown": 74}, {"by path": 14, "by map": 26, "fresh": 2}),
    ("qlora", "vocabulary"): ({"matched": 75, "grown": 3}, {"by path": 28}),
    ("qlora", "rate"): NOTHING,
    ("qlora", "prefixed"): ({"renamed": 78}, {"by map": 28}),
}


@pytest.mark.parametrize(("form", "change"), REPORTS)
def test_a_run_is_resumed_into_another_model(runs, tmp_path, form, change):
    checkpoint, before = runs[form]
    folder = checkpoint.run_dir.parent
    values = {key: str(folder / value) if value == "larger" else value for key, value in CHANGES[change].items()}
    cfg = changed(checkpoint.state["metadata"]["config"], **values, **{"trainer.max_steps": 4})
    if change == "prefixed":
        checkpoint = replace(checkpoint, weights=prefixed(checkpoint.weights), optimizer=prefixed(checkpoint.optimizer))
    start = start_from(checkpoint, cfg, tokenizer=larger_tokenizer(cfg, checkpoint))
    session, state, resumed, carried = begin(start, tmp_path)
    state.restore(resumed)
    assert counts(carried) == REPORTS[form, change]
    vocab_size = before.shape[-1]
    np.testing.assert_allclose(
        logits(state)[..., :vocab_size], before, atol=0.02 if (form, change) == REQUANTISED else 2e-5
    )
    session.fit(state, [], checkpoint=resumed)
    assert (state.progress.step, state.progress.nonfinite_steps) == (4, 0)
    assert np.isfinite(state.history.best)
    assert state.architecture == start.after
    is_changed = change in ("wider", "deeper", "vocabulary")
    assert (start.after != start.before) == is_changed
    assert state.architecture.vocab_size == vocab_size + (2 if change == "vocabulary" else 0)
    assert session.trainer.learning_rate == (0.02 if change == "rate" else 0.01)
