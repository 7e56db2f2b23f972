"""People's own data in every combination: killed and resumed, and compiled."""

import itertools
import json
import signal

import numpy as np
import pytest

from mlxlab.extensions.example_losses import files as example_losses
from support.fault_injection.harness import MODELS, fork_server, reference, rng_for
from support.labelled import write_csv

pytestmark = pytest.mark.fault_injection
SETTINGS = """trainer.max_steps=12 trainer.eval_every=4 checkpointing.every_steps=2
model.num_layers=1 model.hidden_size=16 model.num_heads=2 model.intermediate_size=16
data.batch_size=8 tracking=none resume=auto callbacks.example_losses.every_steps=1"""
LABELLED = ["data=text_classification", "data.baselines=false"]
TABLE = ["data=table", "data.baselines=false"]
DATA = {
    "classes": [*LABELLED, "data.folds=3", "data.fold=1"],
    "pairs": [*LABELLED, "data.text_column=[text,title]"],
    "several_labels": [*LABELLED, "data.target=tags", "data.label_delimiter=|"],
    "numbers": [*TABLE, "data.target=price"],
    "table": [*TABLE, "data.target=label"],
    "instruct": ["data=instruct", "data.seq_len=64", "data.tokenizer.vocab_size=300"],
}
TRAINERS = ["simple", "optimized", "distill"]
COMBINATIONS = [
    (data, model, trainer)
    for data, model, trainer in itertools.product(DATA, MODELS, TRAINERS)
    if data != "instruct" or model == "transformer"
]
COMPILED = ["trainer/step=optimized", "trainer.step.compile=always"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    rows = [
        {
            "text": f"item {n} is {'good' if n % 3 else 'bad'} {'and new ' * (n % 5)}",
            "title": f"title {n % 7}",
            "label": ["a", "b", "c"][n % 3],
            "tags": ["x|y", "", "z"][n % 3],
            "price": n * 1.5,
            "color": ["red", "blue"][n % 2],
        }
        for n in range(90)
    ]
    table = [{name: row[name] for name in ("price", "color", "title", "label")} for row in rows]
    texts, numbers = write_csv(folder / "rows.csv", rows), write_csv(folder / "table.csv", table)
    chats = folder / "c.jsonl"
    lines = [
        {"prompt": f"Say {n} in words, please.", "completion": f"It is number {n}. " * (1 + n % 3)}
        for n in range(90)
    ]
    chats.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    others = {"numbers": numbers, "table": numbers, "instruct": str(chats)}
    return dict.fromkeys(DATA, texts) | others


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, shared_server, sources):
    return first_runs(shared_server, tmp_path_factory, sources)


@pytest.fixture(scope="module")
def native_server(tmp_path_factory):
    """A server of runs with the native kernels: fused kernels of MLX round otherwise than its single ones."""
    with fork_server(tmp_path_factory.mktemp("native"), MLXLAB_NATIVE="require") as server:
        yield server


@pytest.fixture(scope="module")
def first_native_run(tmp_path_factory, native_server, sources):
    return first_runs(native_server, tmp_path_factory, sources)


def first_runs(server, tmp_path_factory, sources):
    """The command line, folder and end of the undisturbed run of a combination, made when it is first asked for."""
    made = {}

    def of(data, model, trainer):
        if (data, model, trainer) not in made:
            teachers = [of(data, "transformer", "simple")[1]] if trainer == "distill" else []
            argv = settings(data, model, trainer, sources, teachers)
            folder = tmp_path_factory.mktemp("first")
            made[data, model, trainer] = argv, folder, reference(server, argv, folder)
        return made[data, model, trainer]

    return of


def settings(data, model, trainer, sources, teachers):
    options = [f"data.source={sources[data]}", f"trainer={trainer}"]
    options += [f"trainer.teachers=[{path}]" for path in teachers]
    return [*MODELS[model], *SETTINGS.split(), *DATA[data], *options]


@pytest.mark.parametrize(("data", "model", "trainer"), COMBINATIONS)
def test_a_killed_run_on_own_data_ends_as_if_it_had_not_been_killed(
    tmp_path, shared_server, first_run, data, model, trainer
):
    argv, _, expected = first_run(data, model, trainer)
    here, rng = [*argv, f"hydra.run.dir={tmp_path}"], rng_for("own data", data, model, trainer)
    for saves in (
        rng.randint(2, 3),
        rng.randint(1, 2),
    ):  # one is committed when the next one begins
        attempt = shared_server.start(here, syncer=False)
        if attempt.wait_for("save", saves):
            attempt.wait(rng.uniform(0.0, 0.05))
        attempt.send(signal.SIGKILL)
        attempt.finish()
    resumed = shared_server.run(here, syncer=False)
    assert "resumed from step-" in resumed.err
    assert resumed.final_state() == expected.final_state


@pytest.mark.parametrize(("data", "model", "trainer"), COMBINATIONS)
def test_a_compiled_run_has_the_losses_and_the_end_of_an_uncompiled_one(
    tmp_path, native_server, first_native_run, data, model, trainer
):
    argv, folder, expected = first_native_run(data, model, trainer)
    compiled = native_server.run(
        [*argv, *COMPILED, f"hydra.run.dir={tmp_path / 'run'}"], syncer=False
    )
    assert compiled.final_state() == expected.final_state
    assert "trainer.step.compile:" not in compiled.err, "it says why it is not compiled"
    losses, uncompiled = example_losses.read(tmp_path / "run"), example_losses.read(folder)
    for name in uncompiled.keys() - {"time"}:
        np.testing.assert_array_equal(losses[name], uncompiled[name], err_msg=name)
