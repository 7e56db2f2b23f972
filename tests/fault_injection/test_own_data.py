"""People's own data in every combination: killed at a random instant and resumed, a run ends with the same bits."""

import itertools
import json
import signal

import pytest

from support.fault_injection.harness import MODELS, committed, reference, rng_for
from support.labelled import write_csv

STEPS = 12
SETTINGS = [
    f"trainer.max_steps={STEPS}",
    "trainer.eval_every=4",
    "checkpointing.every_steps=2",
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.intermediate_size=16",
    "data.batch_size=8",
    "tracking=none",
    "resume=auto",
    "~callbacks.learning_curve",
    "callbacks.example_losses.every_steps=1",
]
DATA = {
    "classes": ["data=text_classification", "data.baselines=false", "data.folds=3", "data.fold=1"],
    "pairs": ["data=text_classification", "data.baselines=false", "data.text_column=[text,title]"],
    "several_labels": [
        "data=text_classification",
        "data.baselines=false",
        "data.label_column=tags",
        "data.label_delimiter=|",
    ],
    "numbers": ["data=table", "data.baselines=false", "data.target=price"],
    "instruct": ["data=instruct", "data.seq_len=64", "data.tokenizer.vocab_size=300"],
}
TRAINERS = ["simple", "optimized", "distill"]
COMBINATIONS = [
    (data, model, trainer)
    for data, model, trainer in itertools.product(DATA, MODELS, TRAINERS)
    if data != "instruct" or model == "transformer"
]
DRAW = {("several_labels", "transformer", "distill")}


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
    texts, numbers, chats = (
        write_csv(folder / "rows.csv", rows),
        write_csv(folder / "table.csv", table),
        folder / "c.jsonl",
    )
    lines = [
        {"prompt": f"Say {n} in words, please.", "completion": f"It is number {n}. " * (1 + n % 3)} for n in range(90)
    ]
    chats.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return dict.fromkeys(DATA, texts) | {"numbers": numbers, "instruct": str(chats)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, shared_server, sources):
    """The run folder of a teacher for each kind of data, trained when it is first asked for."""
    made = {}

    def of(data):
        if data not in made:
            made[data] = tmp_path_factory.mktemp(data)
            reference(shared_server, settings(data, "transformer", "simple", sources), made[data])
        return made[data]

    return of


def settings(data, model, trainer, sources, teacher=None):
    teachers = [] if teacher is None else [f"trainer.teachers=[{teacher}]"]
    shape = [*MODELS[model], *SETTINGS]
    return [*shape, *DATA[data], f"data.source={sources[data]}", f"trainer={trainer}", *teachers]


@pytest.mark.parametrize(
    ("data", "model", "trainer"),
    [c if c in DRAW else pytest.param(*c, marks=pytest.mark.fault_injection) for c in COMBINATIONS],
)
def test_a_killed_run_on_own_data_ends_as_if_it_had_not_been_killed(
    tmp_path, shared_server, sources, teacher, data, model, trainer
):
    argv = settings(data, model, trainer, sources, teacher(data) if trainer == "distill" else None)
    expected = reference(shared_server, argv, tmp_path / "reference")
    rng, folder = rng_for("own data", data, model, trainer), tmp_path / "killed"
    killed_with_checkpoint = 0
    for saves in (rng.randint(2, 3), rng.randint(1, 2)):  # the first one is committed when the second one begins
        attempt = shared_server.start([*argv, f"hydra.run.dir={folder}"], syncer=False)
        if attempt.wait_for("save", saves):
            attempt.wait(rng.uniform(0.0, 0.05))
        attempt.send(signal.SIGKILL)
        attempt.finish()
        killed_with_checkpoint += attempt.returncode == -signal.SIGKILL and bool(committed(folder))
    assert killed_with_checkpoint
    resumed = shared_server.run([*argv, f"hydra.run.dir={folder}"], syncer=False)
    assert resumed.final_state() == expected.final_state
    assert "resumed from step-" in resumed.err
