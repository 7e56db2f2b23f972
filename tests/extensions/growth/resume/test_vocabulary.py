"""A run that is resumed with a larger tokenizer: rows under their ids, new rows, verified, and back again."""

import re
import shutil

import numpy as np
import pytest
import tokenizers

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.data.text.packing import EPOCH_START
from mlxlab.evaluation import at_end
from mlxlab.inference.restore import restore_model
from support.lines import LINES
from support.processes import NO_PLOTS, run_here

KEY = "data.tokenizer.path"
SETTINGS = [
    *("model=transformer", "model.hidden_size=16", "model.num_layers=1", "model.num_heads=2"),
    *(
        "model.intermediate_size=16",
        "data=streaming",
        "data/tokenizer=characters",
        "data.seq_len=8",
    ),
    *(
        "data.batch_size=2",
        "data.prefetch=0",
        "data.valid_fraction=0.3",
        "trainer.max_steps=3",
    ),
    *("trainer.eval_every=2", "trainer.eval_batches=1", "checkpointing.keep=9", "tracking=none"),
    *NO_PLOTS,
]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "lines.jsonl").write_text(
        "".join(f'{{"text": "{line}"}}\n' for line in LINES), encoding="utf-8"
    )
    finished = run_here(
        *SETTINGS, f"data.source={folder}/lines.jsonl", f"hydra.run.dir={folder}/run"
    )
    assert finished.returncode == 0, finished.stderr
    return folder / "run"


def tokenizer_of(run, folder, change):
    """The folder of the tokenizer of a run, changed."""
    tokenizer = tokenizers.Tokenizer.from_file(str(run / "inference" / "tokenizer.json"))
    folder.mkdir()
    change(tokenizer).save(str(folder / "tokenizer.json"))
    return folder


def with_zebra(tokenizer):
    tokenizer.add_tokens(["zebra", "zz"])
    return tokenizer


def with_two_swapped(tokenizer):
    text = with_zebra(tokenizer).to_str()
    return tokenizers.Tokenizer.from_str(
        text.replace('"a":', '"?":').replace('"b":', '"a":').replace('"?":', '"b":')
    )


def resume(folder, *overrides):
    return run_here("tracking=none", *overrides, "resume=auto", f"hydra.run.dir={folder}")


def test_a_larger_tokenizer_keeps_rows_and_moments_under_their_ids(
    finished_run, tmp_path, monkeypatch
):
    starts = []
    monkeypatch.setattr(
        at_end, "trained_batches", lambda state: starts.append(state.first_position) or []
    )
    folder = shutil.copytree(finished_run, tmp_path / "run")
    larger = tokenizer_of(folder, tmp_path / "larger", with_zebra)
    settings = [f"{KEY}={larger}", "trainer.learning_rate=1e-20", "trainer.schedule.warmup=0"]
    resumed = resume(folder, *settings, "trainer.max_steps=4")
    assert resumed.returncode == 0, resumed.stderr
    assert [start["start"] for start in starts] == [EPOCH_START], (
        "baselines count the first batches of the run"
    )
    assert "weights of step-00000003: 10 matched, 1 grown\n" in resumed.stderr
    assert (
        "optimizer state: 10 by path, 1 by map, 0 by shape, 0 fresh, 0 dropped\n" in resumed.stderr
    )
    assert "evaluations up to step 3 do not count for the best" in resumed.stderr
    store = CheckpointStore(folder / "checkpoints")
    old, new = (store.load(f"step-{step}").weights["backbone.embedding.weight"] for step in (3, 4))
    assert len(new) == len(old) + 2
    np.testing.assert_allclose(new[: len(old)], old, atol=1e-7)
    np.testing.assert_allclose(new[len(old) :], np.tile(old.mean(axis=0), (2, 1)), atol=0.05)
    assert store.load("best").step == 4
    assert run_here(f"run={folder}", script="verify").stdout.splitlines()[-1] == "verified"
    earlier, now = (
        restore_model(folder, f"step-{step}").encoder.tokenizer.vocab_size for step in (3, 4)
    )
    assert (earlier, now) == (len(old), len(new))

    for path in store.paths()[:1]:  # as if it was killed before the first save
        shutil.rmtree(path)
    back = resume(folder, "trainer.max_steps=4")
    assert back.returncode == 0, back.stderr
    assert len(store.load().weights["backbone.embedding.weight"]) == len(old)


def with_one_token(tokenizer):
    return tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))


@pytest.mark.parametrize(
    ("change", "fault"),
    [(with_two_swapped, r"; token \d+ is 'b', was 'a'"), (with_one_token, r"; got 1 tokens")],
)
def test_a_tokenizer_with_other_ids_is_refused_by_the_first_token(
    finished_run, tmp_path, change, fault
):
    other = tokenizer_of(finished_run, tmp_path / "other", change)
    refused = resume(finished_run, f"{KEY}={other}", "trainer.max_steps=4")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    expected = (
        f"{KEY}={other}: expected the 282 tokens of the run under their ids, and more after them"
    )
    assert re.fullmatch(f"{re.escape(expected)}{fault}", line), line


@pytest.mark.fault_injection
def test_an_order_that_counts_tokens_is_refused_before_anything_is_written(finished_run, tmp_path):
    source = f"data.source={finished_run.parent}/lines.jsonl"
    finished = run_here(*SETTINGS, source, "data/order=curriculum", f"hydra.run.dir={tmp_path}/run")
    assert finished.returncode == 0, finished.stderr
    larger = tokenizer_of(tmp_path / "run", tmp_path / "larger", with_zebra)
    refused = resume(tmp_path / "run", f"{KEY}={larger}", "trainer.max_steps=4")
    assert refused.returncode == 2
    assert f"{KEY}: cannot change with this data.order, which counts tokens" in refused.stderr
    assert not (tmp_path / "run" / "inference" / "tokenizers").exists()
