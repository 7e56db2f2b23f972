"""Old command lines as shells, launchers and people write them; values that may be secrets are never repeated."""

import shlex

import pytest
from omegaconf import OmegaConf

from mlxlab.cli.translate import main
from mlxlab.cli.translate.translation import translate
from mlxlab.config.hydra.overrides import parse
from mlxlab.errors import ConfigError
from mlxlab.program import quoted

ADVANCED = "python -m src.training.train_advanced --dataset-id a/b"


@pytest.mark.parametrize(
    "line",
    [
        "python mlx_bert_cli.py train --batch-size 16 --max-length 64",
        "python3 -u ./mlx_bert_cli.py train --batch_size=16 --max_length=64",
        "FOO=1 nohup uv run mlx_bert_cli.py train \\\n  -b 16 \\\n  --max-length=64",
        "CUDA_VISIBLE_DEVICES=0 python src/mlx_bert_cli.py train --max_length 64 -b=16",
    ],
)
def test_spellings_of_one_command_are_one_translation(line):
    assert sorted(translate(line).args) == [
        "data.batch_size=16",
        "data.seq_len=64",
        "data=titanic",
        "model=bert",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("python train.py --bach_size=3", "--bach_size: unknown flag of train.py; did you mean --batch-size?"),
        ("python mlx_bert_cli.py trian", "mlx_bert_cli.py: expected a subcommand: train, predict"),
        ("python trian.py --x 1", "trian.py: no program that can be translated; did you mean train.py?"),
        ("ls", "ls: no program that can be translated; there is analyze_tokens.py"),
        ("", "an empty line: no program that can be translated"),
        ("scripts/train.py model=bert", "scripts/train.py: is a command of mlxlab already"),
        ("python train.py 'x", "the command line ends inside a quotation"),
        (f"{ADVANCED} --seed", "--seed: expected a value"),
        (f"{ADVANCED} extra", "train_advanced.py: an argument without a flag, where none is expected"),
        (f"{ADVANCED} --batch-size -3", "--batch-size -3: expected a whole number >= 1"),
        (f"{ADVANCED} --batch-size 1e99999", "--batch-size 1e99999: expected a number"),
        ("python mlx_bert_cli.py benchmark --steps 0", "--steps 0: expected a whole number >= 1"),
        (f"{ADVANCED} --model-preset tinny", "--model-preset tinny: expected nano, tiny, small, medium"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_translated_says_why(line, message):
    with pytest.raises(ConfigError) as caught:
        translate(line)
    assert str(caught.value).startswith(message)


def test_all_unknown_flags_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        translate(f"{ADVANCED} --epochz 3 --seeed 4")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "--epochz",
        "--seeed",
    ]


def test_wrong_values_are_named_as_they_were_typed():
    with pytest.raises(ConfigError) as caught:
        translate("torchrun --nproc_per_node=abc train.py --batch_size=x --n_layer=y --min_lr=z")
    assert sorted(str(caught.value).splitlines()) == [
        "--batch_size x: expected a number",
        "--min_lr z: expected a number",
        "--n_layer y: expected a number",
        "--nproc_per_node abc: expected a number",
    ]


@pytest.mark.parametrize("value", ["-Hello", "-Hello there", "--Hello there", "-1 is odd"])
def test_a_value_may_begin_with_a_dash(value):
    args = translate(
        shlex.join(
            ["python", "generate_text.py", "--checkpoint", "o", "--prompt", value, "--seed", "3"]
        )
    ).args
    assert args == ["run=o", f"prompt={value}", "seed=3"]


def test_a_flag_is_no_value():
    for line in ("python mlx_bert_cli.py train --lr -b 3", f"{ADVANCED} --seed --epochs 3"):
        with pytest.raises(ConfigError, match="expected a value"):
            translate(line)


def test_a_launcher_says_how_many_processes():
    result = translate(
        "RUN_ALIAS=try1 torchrun --nnodes 1 --nproc_per_node=4 --rdzv_endpoint host:1 src/main_simple.py"
    )
    assert result.to == "launch"
    assert {"nproc=4", "name=try1"} <= set(result.args)
    assert (
        "--rdzv_endpoint: no counterpart: mlx.launch connects the processes itself" in result.notes
    )


@pytest.mark.parametrize(
    "line",
    [
        f"{ADVANCED} --azure-sas-token=?sv=2020&sig=hunter2",
        f"{ADVANCED} --azure_sas_tokn hunter2",
        f"{ADVANCED} --azure-sas-tokn -hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2 python -m src.training.train_advancd --dataset-id x",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        f"{ADVANCED} --azure_sas_tokn=hunter2 hunter2",
        f"{ADVANCED} --dataset-id https://me:hunter2@host/x",
        f"{ADVANCED} --cloud-provider azure --azure-sas-token hunter2",
    ],
)
def test_a_token_is_never_printed(line, capsys):
    main([line])
    output = capsys.readouterr()
    assert "hunter2" not in output.out + output.err
    assert output.err


def test_the_command_goes_to_stdout_and_the_rest_to_stderr(capsys):
    assert main([f"{ADVANCED} --streaming True --epochs 2"]) == 0
    output = capsys.readouterr()
    expected = "mlxlab train model=transformer data=streaming trainer=optimized data.source=a/b trainer.epochs=2\n"
    assert output.out == expected
    assert output.err.startswith("--streaming: no counterpart: there never was such a flag")


@pytest.mark.parametrize("value", ["0", "3 trainer.max_steps=1"])
def test_a_command_that_could_not_start_is_refused(value, capsys):
    assert main([shlex.join([*ADVANCED.split(), "--epochs", value])]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"--epochs {value}: ")


@pytest.mark.parametrize(
    "value",
    [
        "it's",
        "a b",
        "null",
        "5",
        "a,b={c}",
        "\\",
        "x\\'y",
        '"',
        "${oc.env:HOME}",
        "[a]",
        "!x",
        "~",
        "caf\u00e9",
    ],
)
def test_text_reaches_the_config_as_it_was_typed(value):
    text = translate(shlex.join([*ADVANCED.split(), "--text-column", value])).args[-1]
    overrides, issues = parse([text], multirun=False)
    assert not issues
    assert OmegaConf.create({"column": overrides[text].value()}).column == value


def test_arguments_are_quoted_for_a_shell():
    args = ["a=b", "a=[1, 2]", "name='5'", "x=${y}'z", "a b", ""]
    assert shlex.split(" ".join(map(quoted, args))) == args
    assert quoted("name='5'") == "\"name='5'\""
