"""`trainer.epochs=auto` of a resumed run: the epochs that it began with."""

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.past_runs.collect_record import limit_of
from support.processes import succeed_here

MODEL = ["model=bert", "model.num_layers=1", "model.hidden_size=8", "model.num_heads=1"]
MODEL += ["model.intermediate_size=8"]
DATA = ["data=text_classification", "data.text_column=text", "data.target=label", "data.seq_len=8"]


def test_another_batch_size_does_not_shorten_a_run_that_is_resumed(tmp_path):
    rows = [f"text number {row},{'ab'[row % 2]}" for row in range(64)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    folder = [f"hydra.run.dir={tmp_path}/run", "tracking=none"]
    succeed_here(*MODEL, *DATA, f"data.source={tmp_path}/rows.csv", "trainer.max_steps=2", *folder)
    assert epochs(tmp_path) == 100  # of 2 steps with 32 rows each
    succeed_here("resume=auto", "data.batch_size=4", "trainer.max_steps=3", *folder)
    assert epochs(tmp_path) == 100


def epochs(folder):
    store = CheckpointStore(folder / "run" / "checkpoints")
    return store.load(read_only=True).state["metadata"]["epochs"]


def test_a_run_shorter_than_its_steps_was_ended_by_another_limit():
    config = {"trainer": {"max_steps": 1000, "epochs": "auto", "max_tokens": None}}
    assert limit_of(config) == limit_of(config, 1000) == "max_steps"
    assert limit_of(config, 200) == "epochs"
