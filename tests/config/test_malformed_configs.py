"""Malformed configurations, by override and by file: one line each, exit 2, nothing created, nothing trained."""

from pathlib import Path

import pytest

from support.configs import line, user_config  # noqa: F401

HEAD = "# @package _global_\n"

BY_OVERRIDE = {
    "unknown key": ("trainer.learning_rte=1", "unknown key; did you mean trainer.learning_rate?"),
    "unknown key, added": (
        "+trainer.learning_rte=1",
        "unknown key; did you mean trainer.learning_rate?",
    ),
    "unknown key, forced": ("++trainer.epoch=1", "did you mean trainer.epochs?"),
    "unknown key at the top": ("+sed=1", "did you mean seed?"),
    "unknown key deep down": (
        "trainer.optimizer.weight_deca=1",
        "did you mean trainer.optimizer.weight_decay?",
    ),
    "key of other options": (
        "data.target=Survived",
        "unknown key; it is of data=table or text_classification",
    ),
    "unknown group": ("modle=bert", "did you mean model?"),
    "unknown subgroup": (
        "model/sise=nano",
        "there is no group model/sise; did you mean model/size?",
    ),
    "unknown option": ("model=brt", "model has no option brt; did you mean bert?"),
    "dot for slash": ("model.size=nano", "unknown key"),
    "missing": ("model.hidden_size=???", "missing; expected a whole number >= 1"),
    "word for a number": (
        "trainer.epochs=abc",
        "expected a whole number >= 1 or auto or null, got abc (text)",
    ),
    "fraction for an integer": ("trainer.epochs=1.5", "expected a whole number"),
    "true for an integer": ("trainer.log_every=true", "got true"),
    "true for a float": ("trainer.learning_rate=true", "got true"),
    "exponent for an integer": ("trainer.epochs=1e3", "expected a whole number"),
    "number for a word": ("name=2024", "expected text or null, got 2024"),
    "word for a flag": ("model.pre_norm=maybe", "expected true or false"),
    "number for a flag": ("model.pre_norm=1", "expected true or false"),
    "null": ("trainer.log_every=null", "expected a whole number >= 1, got null"),
    "null component": ("trainer.loss=null", "expected an option of trainer/loss"),
    "option of a group": (
        "trainer.loss=focal",
        "expected an option of trainer/loss; did you mean trainer/loss=focal?",
    ),
    "option of a group that may be null": (
        "model.adapter=lora",
        "did you mean model/adapter=lora?",
    ),
    "batch size 0": ("data.batch_size=0", "expected a whole number >= 1"),
    "batch size -1": ("data.batch_size=-1", "expected a whole number >= 1"),
    "batch size 1e21": ("data.batch_size=1e21", "expected a whole number >= 1"),
    "batch size 10^21": ("data.batch_size=1000000000000000000000", "expected a whole number >= 1"),
    "rate nan": ("trainer.learning_rate=nan", "expected a number > 0"),
    "rate inf": ("trainer.learning_rate=inf", "expected a number > 0"),
    "rate -1": ("trainer.learning_rate=-1", "expected a number > 0"),
    "rate as text": ("trainer.learning_rate='1e-3'", "got 1e-3 (text)"),
    "seed negative": ("seed=-1", "expected a whole number >= 0"),
    "seed above 2^64": ("seed=18446744073709551616", "got 18446744073709551616 (too large)"),
    "heads": ("model.num_heads=5", "5 heads do not divide a hidden size of 128"),
    "vocabulary": ("model.vocab_size=99", "not a key of the config: the program passes it"),
    "added vocabulary": ("+model.vocab_size=99", "not a key of the config: the program passes it"),
    "keep 0": ("checkpointing.keep=0", "expected a whole number >= 1"),
    "save every 0": ("checkpointing.every_steps=0", "expected a whole number >= 1"),
    "empty list": ("data.templates=[]", "of length >= 1"),
    "choice": ("model.position_embedding=rop", "expected one of learned, rope, got rop"),
    "choice in a list": (
        "data.templates=[basic,narative]",
        "data.templates.1=narative: expected one of basic",
    ),
    "objective": ("objective=valid/los", "expected one of valid/loss"),
    "dangling": ("trainer.epochs=${missing.key}", "${missing.key}: there is no such key"),
    "dangling, nearly": ("trainer.epochs=${trainer.epoch}", "did you mean trainer.epochs?"),
    "circle of one": ("name=${name}", "an interpolation in a circle"),
    "no such variable": (
        "name=${oc.env:MLXLAB_NOPE}",
        "the environment variable MLXLAB_NOPE is not set",
    ),
    "no such resolver": ("name=${nope:1}", "nope"),
    "broken interpolation": ("name='${'", "name="),
    "a group that is null": ("model=null", "model has no option null; there is bert"),
    "an empty option": ("model=", "there is bert, cnn_hybrid, mlx_lm, tabular, transformer"),
    "a key that Hydra does not have": ("hydra.run.dirr=x", "hydra.run.dirr"),
    "no run folder": ("hydra.run.dir=???", "expected the path of a folder"),
    "an empty run folder": ("hydra.run.dir=''", "expected the path of a folder"),
    "dash as a run folder": ("hydra.run.dir=-", "expected the path of a folder"),
    "home as a run folder": (
        "hydra.run.dir='~/x'",
        f"~ is not expanded here; expected {Path.home()}/x",
    ),
    "a home folder": (
        "data.source=~/a b.csv",
        "cannot be read",
    ),
    "an interpolation in parentheses": ("name=run(${seed})", "cannot be read"),
    "~model": ("~model", "expected an option of model; there is bert"),
    "~seed": ("~seed", "missing; expected a whole number"),
    "~nothing": ("~nothing", "nothing"),
    "folder as a file": ("data.source=.", "expected a file"),
    "device as a file": ("data.source=/dev/zero", "expected a file"),
    "dash as a file": ("data.source='-'", "expected a file"),
    "not key=value": ("trainer.epochs", "expected key=value"),
    "open parenthesis": ("name=Reason (coded)", "cannot be read"),
    "a list of names with spaces": ("data.columns=[Reason (coded),age]", "cannot be read"),
    "spaces": ("trainer.epochs = 1", "cannot be read"),
    "open bracket": ("name=[", "cannot be read"),
    "several values without -m": ("seed=1,2", "put -m in front"),
    "deep": ("name=" + "[" * 3000 + "]" * 3000, "nested more than 30 deep"),
    "control character": ("name=a\x1b[31mb", "a control character"),
    "component where text is expected": (
        "name={_target_:mlxlab.models.bert.Bert}",
        "expected text or null",
    ),
    "a key that an operation of growth lacks": (
        "callbacks.growth.operations=[{id: a, op: widen, when: {or_steps: 1}}]",
        "callbacks.growth.operations.0.feed_forward: missing; expected a whole number >= 1",
    ),
    "list where a mapping is expected": ("tags=[1]", "Cannot merge DictConfig with ListConfig"),
    "unknown flag": ("--confg=job", "--confg: unknown flag; did you mean --cfg?"),
    "key as a flag": ("--epochs=5", "--epochs: unknown flag"),
    "flag that is no key": ("--gpu", "--gpu: unknown flag"),
    "config dir": ("--config-dir=nowhere", "not a folder of config files"),
    "primary config": ("--config-name=trian", "trian"),
}


@pytest.mark.parametrize("name", BY_OVERRIDE)
def test_a_malformed_override_gets_one_line_and_exit_2(line, name):
    override, expected = BY_OVERRIDE[name]
    message = line.refuses(override)
    assert expected in message
    key = override.lstrip("+~").partition("=")[0].strip()
    assert message.lstrip("~").startswith(key) or override.startswith("--")


def test_a_sweep_with_an_open_quote_is_that_of_a_folder_with_a_quote(line):
    assert "/'x/sweep.json: not found" in line.refuses("sweep.resume='x", code=66)


BY_FILE = {
    "tabs": ("trainer:\n\tepochs: 1\n", ":3: ", "found character that cannot start any token"),
    "broken": ("trainer: [1, 2\n", ":", "broken YAML"),
    "a key twice": ("seed: 1\nname: a\nseed: 2\n", ":4: ", "the key seed is defined twice"),
    "a boolean key": ("tags:\n  true: 1\n", ":3: ", "the key true is not text; quote it"),
    "a number as a key": ("tags:\n  1.5: 1\n", ":3: ", "the key 1.5 is not text; quote it"),
    "a null key": ("~: 1\n", ":2: ", "the key ~ is not text; quote it"),
    "deep": ("a: " + "[" * 3000 + "]" * 3000, ":2: ", "maximum nesting depth"),
    "deep in blocks": (
        "\n".join(" " * i + "a:" for i in range(300)),
        ":",
        "nested more than 30 deep",
    ),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "mine.yaml: ", "not UTF-8 (byte 0)"),
    "invalid UTF-8": (b"seed: 1\nname: \xff\n", "mine.yaml: ", "not UTF-8 (byte 14)"),
    "NUL": (b"seed: 1\nname: a\0b\n", ":", "control characters are not allowed"),
    "tag": ("name: !!python/object/apply:os.system [id]\n", ":2: ", "the tag"),
    "empty": ("", ":", "expected a mapping of keys to values"),
    "list at the top": ("- 1\n- 2\n", ":", "expected a mapping of keys to values"),
    "two documents": ("seed: 1\n---\nseed: 2\n", ":", "expected a single document"),
    "alias inside itself": ("tags: &a\n  x: *a\n", ":", "nested more than 30 deep"),
}


@pytest.mark.parametrize("name", BY_FILE)
def test_a_malformed_file_gets_one_line_with_its_location_and_exit_2(line, user_config, name):
    content, location, expected = BY_FILE[name]
    message = line.refuses(*user_config(content if isinstance(content, bytes) else HEAD + content))
    assert expected in message
    assert location in message
    assert "mine.yaml" in message


IN_FILE = {
    "unknown key": (
        "trainer:\n  learning_rte: 1\n",
        "trainer.learning_rte: ",
        "did you mean trainer.learning_rate?",
    ),
    "unknown option": ("defaults:\n  - override /model: brt\n", "", "did you mean bert?"),
    "wrong type": ("trainer:\n  epochs: abc\n", "trainer.epochs: ", "got abc (text)"),
    "fraction": ("trainer:\n  epochs: 1.5\n", "trainer.epochs: ", "expected a whole number"),
    "true": ("trainer:\n  epochs: true\n", "trainer.epochs: ", "got true"),
    "exponent": ("trainer:\n  epochs: 1e3\n", "trainer.epochs: ", "expected a whole number"),
    "null": ("seed: null\n", "seed: ", "got null"),
    "batch size": (
        "data:\n  batch_size: 0\n",
        "data.batch_size: ",
        "expected a whole number >= 1",
    ),
    "nan": ("trainer:\n  learning_rate: .nan\n", "trainer.learning_rate: ", "got nan"),
    "text": (
        "trainer:\n  learning_rate: '1e-3'\n",
        "trainer.learning_rate: ",
        "got 1e-3 (text)",
    ),
    "warm-up": (
        "trainer:\n  max_steps: 5\n  schedule:\n    warmup: 6\n",
        "",
        "longer than the run of 5",
    ),
    "empty list": ("data:\n  templates: []\n", "data.templates: ", "of length >= 1"),
    "in a list": (
        "data:\n  templates:\n    - basic\n    - bsic\n",
        "data.templates.1: ",
        "expected one of basic",
    ),
    "dangling": ("name: ${missing.key}\n", "name: ", "there is no such key"),
    "circle": ("name: ${name}\n", "name: ", "an interpolation in a circle"),
    "no such variable": ("name: ${oc.env:MLXLAB_NOPE}\n", "name: ", "MLXLAB_NOPE is not set"),
    "a list for a mapping": (
        "tags:\n  - a\n",
        "experiment/mine",
        "Cannot merge DictConfig with ListConfig",
    ),
}


@pytest.mark.parametrize("name", IN_FILE)
def test_a_wrong_value_in_a_file_gets_one_line_with_its_key_and_exit_2(line, user_config, name):
    content, key, expected = IN_FILE[name]
    message = line.refuses(*user_config(HEAD + content))
    assert key.removesuffix(": ") in message
    assert expected in message


def test_a_missing_mandatory_value_is_reported(line, user_config):
    user_config(
        "_target_: mlxlab.models.bert.Bert\nhidden_size: ???\nnum_layers: 1\nnum_heads: 1\n"
        "intermediate_size: 8\n",
        name="model/mine.yaml",
    )
    flags = user_config("{}", name="experiment/mine.yaml")[:2]
    message = line.refuses(*flags, "model=mine", "model/size=none")
    assert message == "model.hidden_size=???: missing; expected a whole number >= 1"


def test_words_and_numbers_that_yaml_once_read_otherwise_are_text(line, user_config):
    content = "\ufeff" + HEAD + "name: no\ntags: {on: 12:30, octal: 0777}\n"
    assert line(*user_config(content)) == 0
    assert line.runs[0][0].name == "no"
    assert dict(line.runs[0][0].tags) == {"on": "12:30", "octal": "0777"}


def test_an_alias_bomb_is_refused_by_its_expanded_size(line, user_config):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    assert "more than 20,000 values" in line.refuses(*user_config(HEAD + bomb))


def test_fifty_megabytes_are_refused_unread(line, user_config):
    flags = user_config(HEAD + "name: " + "x" * 50_000_000)
    assert "larger than 1048576 bytes" in line.refuses(*flags)


def test_a_yml_file_is_no_option(line, user_config):
    message = line.refuses(*user_config(HEAD + "seed: 1\n", name="experiment/mine.yml"))
    assert message.startswith("experiment=mine: experiment has no option mine")


def test_the_last_override_of_a_key_counts(line):
    assert line("seed=1", "seed=2") == 0
    assert line.runs[0][0].seed == 2


def test_an_interpolation_in_a_circle_of_two_is_reported_for_both(line):
    message = line.refuses("name=${resume}", "resume=${name}", lines=2)
    assert message.count("an interpolation in a circle") == 2


def test_warm_up_may_be_a_fraction_but_not_longer_than_the_run(line):
    line.refuses("trainer.max_steps=10", "trainer.schedule.warmup=11")
    assert line("trainer.max_steps=10", "trainer.schedule.warmup=0.5") == 0
    assert line("trainer.max_steps=10", "trainer.schedule.warmup=10") == 0
    tokens = ["trainer.epochs=null", "trainer.max_tokens=1000", "trainer/schedule=wsd"]
    assert line(*tokens, "trainer.schedule.warmup=5") == 0


def test_a_fold_that_there_is_not_is_refused_before_the_first_job(line):
    message = line.refuses("-m", "data.folds=3", "data.fold=0,7")
    assert message == "data.fold=7: expected less than data.folds=3"
    assert line.runs == []


def test_keys_of_an_option_that_does_not_exist_are_no_second_error(line):
    message = line.refuses("model/adapter=lroa", "model.adapter.rnak=4")
    assert message == "model/adapter=lroa: model/adapter has no option lroa; did you mean lora?"


def test_all_errors_are_reported_at_once_at_most_ten(line):
    message = line.refuses(
        "modle=bert",
        "model=brt",
        "trainer.learning_rte=1",
        "seed=-1",
        "trainer.epochs=x",
        "name=1",
        lines=6,
    )
    for override in (
        "modle=bert",
        "model=brt",
        "trainer.learning_rte=1",
        "seed=-1",
        "trainer.epochs=x",
        "name=1",
    ):
        assert f"{override}: " in message
    line.refuses(*[f"+k{n}=1" for n in range(14)], lines=11)
    assert line.lines[-1] == "and 4 more"


def test_a_secret_in_the_environment_is_never_shown(line, user_config, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2secret")
    monkeypatch.setenv("MLXLAB_PLAIN", "hunter2secret")
    monkeypatch.setenv("MLXLAB_DATABASE", "postgres://me:hunter2secret@host/db")
    hidden = [
        "name=${oc.env:AWS_SECRET_ACCESS_KEY}",
        "seed=${oc.env:MLXLAB_PLAIN}",
        "name=${oc.env:MLXLAB_DATABASE}",
    ]
    for override in [
        *hidden,
        "seed=${oc.decode:${oc.env:MLXLAB_PLAIN}}",
        "model._target_=${oc.env:MLXLAB_PLAIN}",
    ]:
        line(override)
        assert line.code in (2, 77)
        assert "hunter2secret" not in line.out + line.err
        assert override in line.err
    for flags in (["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--cfg", "all"]):
        line(*flags, hidden[0])
        assert "hunter2secret" not in line.out + line.err
    line(*user_config(HEAD + "name: ${oc.env:AWS_SECRET_ACCESS_KEY}\n"))
    assert "hunter2secret" not in line.err
    assert "name=" in line.err


def test_a_number_from_the_environment_is_a_number(line, monkeypatch):
    monkeypatch.setenv("MLXLAB_STEPS", "7")
    assert line('trainer.max_steps="${oc.decode:${oc.env:MLXLAB_STEPS}}"') == 0
    assert line.runs[0][0].trainer.max_steps == 7
    assert "got ${oc.env:MLXLAB_STEPS} (text)" in line.refuses(
        "trainer.max_steps=${oc.env:MLXLAB_STEPS}", lines=None
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.epochs=null"],
            "trainer.epochs, max_steps and max_tokens are all null: set one of them",
        ),
        (
            ["data=streaming", "model=transformer", "trainer.teachers=[outputs/t]"],
            "expected trainer=distill",
        ),
        (["model=transformer", "model.num_kv_heads=3"], "model.num_kv_heads=3: 3 key-value"),
        (["trainer.optimizer.betas=[0.9]"], "a list of length >= 2 and of length <= 2"),
        (["trainer.optimizer.betas=[0.9,0.99,0.999]"], "a list of length >= 2 and of length <= 2"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_conflicts_between_keys_are_refused(line, overrides, message):
    assert message in line.refuses(*overrides)


def test_every_invalid_parameter_of_a_sweep_in_a_file_is_reported(line, user_config):
    params = "hydra:\n  sweeper:\n    params:\n      trainer.epochs: 1,,2\n      seed: '[1'\n"
    err = line.refuses("-m", *user_config(HEAD + params), lines=2)
    for line_, override in zip(err.splitlines(), ("trainer.epochs=1,,2", "seed=[1"), strict=True):
        assert line_.startswith(f"hydra.sweeper.params.{override}: cannot be read")


def test_rows_longer_than_the_configured_context_are_accepted_with_rotary_positions(line):
    assert line("model=transformer", "data=streaming", "data.seq_len=4096") == 0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=3", "trainer.epochs"),
        ("lr=0.1", "trainer.learning_rate"),
        ("batch_size=4", "data.batch_size"),
        ("bsz=4", "data.batch_size"),
        ("max_epochs=4", "trainer.epochs"),
        ("trainer.batch_size=4", "data.batch_size"),
        ("num_layers=2", "model.num_layers"),
        ("model.dim=64", "model.hidden_size"),
        ("data.lr=1", "trainer.learning_rate"),
    ],
)
def test_an_unknown_key_suggests_the_nearest_key_anywhere(line, override, expected):
    assert line.refuses(override) == f"{override}: unknown key; did you mean {expected}?"


def test_a_part_of_a_word_is_no_near_key(line):
    assert "did you mean" not in line.refuses("out=x")


def test_an_unknown_option_of_a_group_lists_the_options(line):
    options = "mlflow, none, trackio, wandb"
    assert line.refuses("tracking=comet").endswith(
        f"tracking has no option comet; there is {options}"
    )


def test_a_missing_file_of_data_is_asked_for(line):
    message = line.refuses("data=text_classification")
    assert message.startswith("data.source=???: missing; expected text")
