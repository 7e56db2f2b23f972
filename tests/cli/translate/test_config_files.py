"""Configuration files of old programs: JSON of known keys, and Python that is read and never executed."""

import json

import pytest

from mlxlab.cli.translate import check
from mlxlab.cli.translate.translation import translate
from mlxlab.errors import ConfigError, DataError, InputNotFoundError

TRAIN = "python mlx_bert_cli_v2.py train --train T"


def test_a_json_file_is_translated_key_by_key(tmp_path):
    content = {
        "learning_rate": 2e-5,
        "num_epochs": 10,
        "batch_size": 32,
        "max_batch_size": 64,
        "enable_dynamic_batching": True,
        "gradient_accumulation": 2,
        "early_stopping_patience": 3,
        "label_smoothing": 0.1,
        "warmup_steps": 100,
        "configurations": {"quick": {}},
        "tracking_uri": None,
        "wramup_ratio": 0.2,
    }
    file = tmp_path / "my.json"
    file.write_text(json.dumps(content))
    result = translate(f"{TRAIN} --config {file}")
    assert result.args == [
        "model=bert",
        "data=titanic",
        "trainer=optimized",
        "data.source=T",
        "trainer.learning_rate=2e-05",
        "trainer.epochs=10",
        "data.batch_size=64",
        "trainer.step.accumulate=2",
        "callbacks.adaptive_batch.min=32",
        "callbacks.adaptive_batch.max=128",
        "callbacks.early_stopping.patience=3",
        "trainer.label_smoothing=0.1",
        "trainer.schedule.warmup=100",
    ]
    check(result.overrides)
    assert (
        f"{file}: wramup_ratio: unknown key, left out; did you mean warmup-ratio?" in result.notes
    )
    assert any(
        note.startswith("configurations: no counterpart: ignored there") for note in result.notes
    )


def test_a_json_file_wins_over_flags_as_it_did(tmp_path):
    file = tmp_path / "my.json"
    file.write_text('{"learning_rate": 0.5}')
    result = translate(f"{TRAIN} --config {file} --lr 0.1")
    assert "trainer.learning_rate=0.5" in result.args
    assert f"{file}: learning_rate wins over --lr, as it did there" in result.notes


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[1]", DataError),
        ("{", DataError),
        ('{"a": 1, "a": 2}', DataError),
        ("[" * 9000, DataError),
    ],
)
def test_a_malformed_json_file_is_refused(tmp_path, content, error):
    (tmp_path / "my.json").write_text(content)
    with pytest.raises(error):
        translate(f"{TRAIN} --config {tmp_path}/my.json")


def test_a_missing_file_is_named():
    with pytest.raises(InputNotFoundError, match=r"nowhere\.json"):
        translate(f"{TRAIN} --config nowhere.json")


def test_a_python_file_is_read_and_not_executed(tmp_path):
    marker = tmp_path / "executed"
    file = tmp_path / "small.py"
    file.write_text(
        f"import os\nopen({str(marker)!r}, 'w')\nos.system('touch {marker}')\n"
        "batch_size = 12\ngradient_accumulation_steps = 4 * 8\nlearning_rate: float = 1e-3\n"
        "out_dir = os.environ['OUT']\nmax_iters = 600\nwandb_run_name = 'mini' \nn_layres = 3\n"
    )
    result = translate(f"python train.py {file} --batch_size=2")
    assert result.args == [
        "model=transformer",
        "data=streaming",
        "trainer=optimized",
        "data.batch_size=64",
        "trainer.step.accumulate=32",
        "trainer.learning_rate=0.001",
        "trainer.epochs=null",
        "trainer.max_steps=600",
        "name=mini",
    ]
    check(result.overrides)
    assert not marker.exists()
    assert f"{file}: not read, only literals are: line 2, line 3, out_dir" in result.notes
    assert f"{file}: n_layres: unknown key, left out; did you mean n-layer?" in result.notes


def test_a_python_file_may_hold_a_class_a_dictionary_or_a_call(tmp_path):
    file = tmp_path / "distill.py"
    file.write_text(
        "class Config:\n    alpha: float = 0.25\n    kl_temperature = 2\n"
        "config = {'total_rounds': 2, 'learning_rate': 1e-4}\n"
        "settings = Settings(per_device_train_batch_size=1, gradient_accumulation_steps=2, seed=3)\n"
    )
    result = translate(f"torchrun --nproc_per_node=2 src/main.py --config {file}")
    assert result.to == "launch"
    assert {
        "nproc=2",
        "trainer.loss.alpha=0.25",
        "trainer.loss.scale_by_t2=false",
        "trainer.distillation.rounds=2",
        "data.batch_size=4",
        "trainer.step.accumulate=2",
        "trainer/step=optimized",
        "seed=3",
    } <= set(result.args)
    check(result.overrides)


@pytest.mark.parametrize(
    "content", ["batch_size = (", "x = " + "(" * 5000, "batch_size = '\\ud800'\0"]
)
def test_a_malformed_python_file_is_refused(tmp_path, content):
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(DataError):
        translate(f"python train.py {tmp_path}/bad.py")


@pytest.mark.parametrize(
    "value", ["9 ** 9 ** 9", "'a' * 10**10", "[0] * 10**10", "1 / 0", "__import__('os')"]
)
def test_values_that_are_no_small_literals_are_skipped(tmp_path, value):
    (tmp_path / "odd.py").write_text(f"batch_size = {value}\n")
    result = translate(f"python train.py {tmp_path}/odd.py")
    assert not any(arg.startswith("data.batch_size") for arg in result.args)
    assert any(note.endswith("not read, only literals are: batch_size") for note in result.notes)


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("learning_rate = 1e-3\nlearning_rate *= 2\n", "learning_rate"),
        ("learning_rate = 1e-3\nif True:\n    learning_rate = 2\n", "line 2"),
        ("learning_rate = 1e-3\nlearning_rate = rate()\n", "learning_rate"),
        ("learning_rate = 1e-3\nlearning_rate, x = 2, 3\n", "line 2"),
        ("config = {'learning_rate': 1e-3}\nconfig['learning_rate'] = rate()\n", "learning_rate"),
        ("config = {'learning_rate': 1e-3}\nconfig['learning_rate'] *= 2\n", "learning_rate"),
        ("config = {'learning_rate': 1e-3}\ndel config['learning_rate']\n", "line 2"),
        ("def setup(config):\n    config.learning_rate = 2\n", "setup()"),
        ("class Config:\n    async def rate(self):\n        return 2\n", "rate()"),
        ("from other import *\n", "line 1"),
        ("config = {**other}\n", "line 1"),
        ("config = Config(**other)\n", "line 1"),
    ],
)
def test_statements_that_cannot_be_read_are_named_and_change_no_value_silently(
    tmp_path, content, label
):
    file = tmp_path / "small.py"
    file.write_text(content)
    result = translate(f"python train.py {file}")
    assert not any(arg.startswith("trainer.learning_rate") for arg in result.args)
    assert f"{file}: not read, only literals are: {label}" in result.notes


@pytest.mark.parametrize(
    "target", ["config['learning_rate']", "config.learning_rate", "Config.learning_rate: float"]
)
def test_an_assignment_to_a_key_or_an_attribute_is_read(tmp_path, target):
    (tmp_path / "small.py").write_text(f"config = dict(learning_rate=1e-3)\n{target} = 2\n")
    assert "trainer.learning_rate=2" in translate(f"python train.py {tmp_path}/small.py").args


def test_chained_assignments_are_read(tmp_path):
    (tmp_path / "small.py").write_text("block_size = max_iters = 8\n")
    args = translate(f"python train.py {tmp_path}/small.py").args
    assert {"data.seq_len=8", "trainer.max_steps=8"} <= set(args)


def test_a_credential_of_a_file_is_not_repeated(tmp_path):
    file = tmp_path / "my.json"
    file.write_text('{"tracking_uri": "https://user:hunter2@host/"}')
    result = translate(f"{TRAIN} --config {file}")
    assert "hunter2" not in " ".join([*result.args, *result.notes])
    assert (
        "tracking-uri: not repeated: a URL with credentials; set them in the environment"
        in result.notes
    )


def test_wrong_values_are_named_with_their_file_all_at_once(tmp_path):
    file = tmp_path / "my.json"
    file.write_text('{"gradient_accumulation": "many", "batch_size": "thirty", "eval_steps": true}')
    with pytest.raises(ConfigError) as caught:
        translate(f"{TRAIN} --config {file} --early-stopping soon")
    assert sorted(str(caught.value).splitlines()) == [
        "--early-stopping soon: expected a number",
        f"{file}: batch_size thirty: expected a number",
        f"{file}: eval_steps True: expected a number",
        f"{file}: gradient_accumulation many: expected a number",
    ]
