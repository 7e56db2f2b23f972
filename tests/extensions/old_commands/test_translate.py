"""Command lines of the programs that mlxlab replaces become the commands that they stand for, and these compose."""

import copy
import json
import re
import shlex

import pytest
from omegaconf import OmegaConf

from mlxlab.config.hydra.overrides import parse
from mlxlab.extensions.old_commands.commands.translate import read_tables, translate
from support.commands import command
from support.processes import ROOT
from support.sweep_jobs import checked_config

main = command("translate")

GUIDE = (ROOT / "docs" / "how_to" / "migration.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"^\| `((?:python|torchrun|\./).*?)` \| `(.*?)` \|$", GUIDE, re.M)
RECIPES = re.findall(r"`(experiment=[^`]*)`", GUIDE)
TABLES = read_tables()
BERT = "mlxlab train model=bert data=titanic"
STREAMING = "mlxlab train model=transformer data=streaming trainer=optimized"
TRAIN = "python mlx_bert_cli_v2.py train"
ADVANCED = "python -m src.training.train_advanced --dataset-id a/b"
LINES = {  # old -> new, in addition to those of the guide
    f"{TRAIN} -t T -b 16 --grad-accum 2 --eval-steps 100 --save-steps=50": f"{BERT} trainer=optimized data.source=T"
    " data.batch_size=32 trainer.step.accumulate=2 trainer.eval_every=50 checkpointing.every_steps=25",
    f"{TRAIN} --config configs/production.yaml": f"experiment=production {BERT}",
    f"{TRAIN} --train T --resume 'output/run_*/checkpoints/best'": f"{BERT} data.source=T resume=best"
    " hydra.run.dir=outputs/mine",
    f"{TRAIN} --resume 'output/run_*' --output x": f"{BERT} resume=best hydra.run.dir=outputs/mine",
    f"{TRAIN} --resume output/run_1/checkpoints/best": f"{BERT} resume=output/run_1/best",
    f"{TRAIN} --early-stopping 0 --no-mlflow --experiment x": f"{BERT} tracking=none"
    " callbacks.early_stopping.patience=null",
    f"{TRAIN} --output my/runs/ --run-name 5": f"{BERT} hydra.run.dir=my/runs/run_${{now:%Y%m%d_%H%M%S}} name='5'",
    f"{TRAIN} --dilated false --model-type cnn_hybrid": "mlxlab train model=cnn_hybrid data=titanic model.dilations=[]",
    f"{TRAIN} --no-dynamic-batch --max-batch-size 64": f"{BERT} callbacks.adaptive_batch.max=null",
    "python3 -u ./mlx_bert_cli.py train --batch_size=16 --max_length=64": f"{BERT} data.batch_size=16 data.seq_len=64",
    "FOO=1 nohup uv run mlx_bert_cli.py train \\\n  -b 16 \\\n  --max-length=64": f"{BERT} data.batch_size=16"
    " data.seq_len=64",
    "python run_production.py --config thorough": f"{BERT} experiment=standard trainer.epochs=10 data.batch_size=16"
    " trainer.learning_rate=1e-5 trainer.schedule.warmup=200 trainer.eval_every=100",
    "python train_cnn_hybrid.py --train-path T --compare-models --cnn-kernel-sizes 2 3 --optimizer sgd --momentum 0.8":
        "mlxlab train -m model=bert,cnn_hybrid data=titanic trainer/optimizer=sgd data.source=T"
        " trainer.optimizer.momentum=0.8",
    "python train_cnn_hybrid.py --use-highway false --use-dilated-conv False --use-attention-fusion false":
        "mlxlab train model=cnn_hybrid data=titanic model.highway=false model.dilations=[] model.fusion=concat",
    "python train_cnn_hybrid.py --optimizer adam --weight-decay 0.1": "mlxlab train model=cnn_hybrid data=titanic"
    " trainer/optimizer=adamw trainer.optimizer.weight_decay=0",
    "python train.py --batch_size=32 --gradient_accumulation_steps=1": f"{STREAMING} data.batch_size=32"
    " trainer.step.accumulate=1",
    "python train.py --n_layer=6 --decay_lr=False --warmup_iters=5": f"{STREAMING} model/size=none"
    " trainer/schedule=constant model.hidden_size=768 model.num_layers=6 model.num_heads=12"
    " model.intermediate_size=3072 trainer.schedule.warmup=0",
    "python train.py --n_layer=12 --n_hidden=None": f"{STREAMING} model/size=medium",
    "torchrun --standalone --nproc_per_node=2 train.py --batch_size=4 --gradient_accumulation_steps=8 --beta2=0.99"
    " --learning_rate=1e-3 --min_lr=1e-4": f"{STREAMING.replace('train', 'launch nproc=2', 1)} data.batch_size=32"
    " trainer.step.accumulate=4 trainer.optimizer.betas=[0.9,0.99] trainer.learning_rate=1e-3"
    " trainer.schedule.final_lr_ratio=0.1",
    "python train.py --wandb_log=True --wandb_project=owt --wandb_run_name=first": f"{STREAMING} tracking=wandb"
    " tracking.wandb.project=owt name=first",
    "python train_cnn_hybrid.py --compare-models false --enable-mlflow False":
        "mlxlab train model=cnn_hybrid data=titanic tracking=none",
    "mlx_bert_cli_v2.py train --no-mlflow false --run-name ''": "mlxlab train model=bert data=titanic",
    "python train.py --wandb_log=False --wandb_project=owt": STREAMING,
    "python train.py --init_from=resume --out_dir=mine": f"{STREAMING} hydra.run.dir=mine resume=auto",
    "python src/main.py --student allenai/OLMo-2-0425-1B-SFT --teacher outputs/olmo --dataset-name chats.jsonl":
        "mlxlab train model=mlx_lm trainer=distill data=instruct trainer.teachers=[outputs/olmo]"
        " model.pretrained=allenai/OLMo-2-0425-1B-SFT data.source=chats.jsonl",
    "python src/main.py --lr-scheduler-type constant --warmup-steps 9 --ensemble-path a b --dataset-name c.jsonl":
        "mlxlab train model=mlx_lm trainer=distill data=instruct trainer/schedule=constant"
        " trainer.teachers=[outputs/teacher] model.pretrained=allenai/OLMo-2-0425-1B-SFT data.source=c.jsonl"
        " trainer.schedule.warmup=0 trainer.distillation.members=[a,b]",
    f"{ADVANCED} --no-swiglu --activation relu --use-lora --lora-rank 4 --save-every 0": f"{STREAMING}"
    " model/adapter=lora data.source=a/b model.mlp_type=relu model.adapter.rank=4 checkpointing.every_steps=1000000000",
    f"{ADVANCED} --cloud-provider gcs --cloud-bucket b --cloud-prefix p/q --cloud-region x --save-every 1":
        f"{STREAMING} cloud=gcs data.source=a/b cloud.bucket=b cloud.prefix=p/q checkpointing.every_steps=1",
    f"{ADVANCED} --cloud-bucket b --cloud-prefix p": f"{STREAMING} data.source=a/b",
    f"{ADVANCED} --auto-vocab-size --vocab-size 9 --model-preset tiny --d-model 9": f"{STREAMING} data.source=a/b"
    " data.tokenizer.vocab_size=auto model/size=tiny",
    "python mlx_bert_cli.py predict -t test.csv -c output/run_1/checkpoints/best": "mlxlab predict run=output/run_1"
    " format=kaggle keep=[PassengerId] output=submission.csv input=test.csv",
    "python mlx_bert_cli.py list-experiments": "mlxlab runs list",
    "python mlx_bert_cli.py export -c output/run_1 -o out --format mlx": "mlxlab export hf run=output/run_1 out=out",
    "python mlx_bert_cli.py --help": "mlxlab --help",
    "python mlx_bert_cli.py train --help": f"{BERT} --help",
    "python generate_text.py --checkpoint o/best_checkpoint --prompt Hi --top-p 0.9": "mlxlab generate run=o"
    " checkpoint=best prompt=Hi top_p=0.9",
    "python sample.py --start=FILE:p.txt --top_k=5": "mlxlab generate run=out prompts=p.txt top_k=5",
}  # fmt: skip


@pytest.fixture(autouse=True)
def parsed_tables(monkeypatch):
    """Parsing the YAML of all programs takes a tenth of a second: copies of one result stand for it."""
    module = "mlxlab.extensions.old_commands.commands.translate"
    monkeypatch.setattr(f"{module}.read_tables", lambda: copy.deepcopy(TABLES))


def compose(command):
    """The config of a training command; None of other commands."""
    words = shlex.split(command)
    if words[1] not in ("train", "launch"):
        return None
    return checked_config([word for word in words[2:] if not word.startswith("nproc=")])


def command_of(line, *options, capsys):
    assert main([line, *options]) == 0
    return capsys.readouterr().out.strip()


def error_of(line, capsys):
    code = main([line])
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    return code, output.err


@pytest.mark.parametrize(("old", "new"), DOCUMENTED)
def test_the_guide_says_what_is_printed(old, new, capsys):
    assert command_of(old, capsys=capsys) == new
    compose(new)


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_old_documents_is_translated(line, capsys):
    new = command_of(line, capsys=capsys)
    words = shlex.split(new.replace(", ", ","))
    assert sorted(words) == sorted(LINES[line].split())
    compose(new)


@pytest.mark.parametrize(
    "program", [name for name, table in TABLES.items() if table.get("command") == "mlxlab train"]
)  # fmt: skip
def test_all_old_defaults_of_a_program_compose(program, capsys):
    script, *subcommand = program.split()
    line = " ".join(["python", f"{script}.py", *subcommand])
    config = compose(command_of(line, "defaults=true", capsys=capsys))
    assert config is not None


def test_every_recipe_of_the_guide_composes():
    assert len(RECIPES) > 8
    for recipe in RECIPES:
        compose(f"mlxlab train {recipe}")


def test_a_json_file_is_translated_key_by_key_and_wins_over_flags(tmp_path, capsys):
    content = {
        "learning_rate": 2e-5,
        "num_epochs": 10,
        "batch_size": 32,
        "max_batch_size": 64,
        "enable_dynamic_batching": True,
        "gradient_accumulation": 2,
        "early_stopping_patience": 3,
        "label_smoothing": 0.1,
        "tracking_uri": "https://user:hunter2@host/",
        "wramup_ratio": 0.2,
    }
    file = tmp_path / "my.json"
    file.write_text(json.dumps(content))
    result = translate(f"{TRAIN} --train T --lr 0.5 --config {file}")
    assert sorted(result.args.values()) == sorted(
        f"{BERT} trainer=optimized data.source=T trainer.learning_rate=2e-05 trainer.epochs=10 data.batch_size=64"
        " trainer.step.accumulate=2 callbacks.adaptive_batch.min=32 callbacks.adaptive_batch.max=128"
        " callbacks.early_stopping.patience=3 trainer.label_smoothing=0.1".split()[2:]
    )
    notes = "\n".join(result.notes)
    assert f"{file}: wramup-ratio: unknown key" in notes
    assert "hunter2" not in notes
    compose(command_of(f"{TRAIN} --train T --config {file}", capsys=capsys))


def test_a_python_file_is_read_and_not_executed(tmp_path, capsys):
    marker = tmp_path / "executed"
    file = tmp_path / "small.py"
    file.write_text(
        f"import os\nopen({str(marker)!r}, 'w')\nbatch_size = 12\ngradient_accumulation_steps = 32  # rows\n"
        "learning_rate: float = 1e-3\nout_dir = os.environ['OUT']\nwandb_run_name = 'mini'\nn_layres = 3\n"
        "class Config:\n    max_iters = 600\n"
    )
    new = command_of(f"python train.py {file} --batch_size=2", capsys=capsys)
    assert sorted(new.split()) == sorted(
        f"{STREAMING} data.batch_size=64 trainer.step.accumulate=32 trainer.learning_rate=0.001"
        " trainer.epochs=null trainer.max_steps=600 name=mini".split()
    )
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["json", "yaml", "inline"])
def test_a_growth_schedule_becomes_operations(tmp_path, suffix, capsys):
    entries = [
        entry("set_warmup_iters", 500, None, 10),
        entry("widen_mlp", 3072, 4.5, 20, True),
        entry("set_batch_size", 6, 4.0, None),
        entry("change_lr", 0.5, None, 30),
        entry("reset_lr_schedule", None, 3.8, 40),
        entry("set_layer_lora_rank", ["attn.0", 4], None, None),
    ]
    file = tmp_path / f"schedule.{suffix}"
    text = json.dumps(entries) if suffix == "json" else OmegaConf.to_yaml(OmegaConf.create(entries))
    file.write_text(text)
    schedule = f"--scaling_schedule_file={file}"
    if suffix == "inline":
        schedule = shlex.quote(f"--scaling_schedule={entries}")
    line = f"python train.py {schedule} --learning_rate=1e-3 --n_layer=6"
    config = compose(f"{command_of(line, capsys=capsys)} objective=valid/bits_per_byte")
    assert OmegaConf.to_container(config.callbacks.growth.operations) == [
        {"id": "widen_mlp_1", "op": "widen", "feed_forward": 3072, "when": {"metric_below": 4.5, "or_steps": 20},
         "then": "evaluate"},
        {"id": "set_batch_size_2", "op": "set_batch_size", "batch_size": 240, "when": {"metric_below": 4.0}},
        {"id": "set_batch_size_3", "op": "set_accumulation", "accumulate": 40,
         "when": {"metric_below": 4.0, "or_steps": 1}},
        {"id": "change_lr_4", "op": "set_learning_rate", "learning_rate": 0.0005, "when": {"or_steps": 30}},
        {"id": "reset_lr_schedule_5", "op": "rewarm", "steps": 500, "restart": True,
         "when": {"metric_below": 3.8, "or_steps": 40}},
        {"id": "set_layer_lora_rank_6", "op": "set_lora", "rank": 4, "targets": ["layers.0.attention"],
         "when": {"or_steps": 1}},
    ]  # fmt: skip


def entry(name, value, loss=4.0, wait=2000, reevaluate=False):
    limits = {"trigger_loss": loss, "max_wait_iters": wait}
    return {"name": name, "value": value, "reevaluate": reevaluate, "desc": ""} | limits


def test_every_old_growth_operation_has_one_here_or_a_note(capsys):
    values = {"stack_layers": [0, 0, 1], "set_layer_lora_rank": ["mlp.0", 4], "freeze_layer": "wte"}
    values |= {
        "unfreeze_layer": "ln_f",
        "set_curriculum_alpha": 0.5,
    }
    names = TABLES["growth schedule"]["flags"]
    entries = [entry(name, values.get(name, 2)) for name in names]
    schedule = shlex.quote(f"--scaling_schedule={entries}")
    assert main([f"python train.py --shrunken_vocab_size=1000 {schedule}"]) == 0
    output = capsys.readouterr()
    config = compose(f"{output.out} data/order=curriculum objective=valid/bits_per_byte")
    translated = {each.id.rpartition("_")[0] for each in config.callbacks.growth.operations}
    noted = {note.partition(":")[0] for note in output.err.splitlines()}
    assert set(names) <= translated | noted


def test_an_evaluation_after_an_entry_without_an_operation_is_dropped(capsys):
    schedule = shlex.quote(f"--scaling_schedule={[entry('set_warmup_iters', 5, reevaluate=True)]}")
    assert main([f"python train.py {schedule}"]) == 0
    assert "callbacks.growth.operations=[]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "entries",
    [[entry("stack_layer", [0])], [entry("freeze_layer", "atn.0")], [{"name": "set_lr"}], {"a": 1}, [3]],
)  # fmt: skip
def test_a_malformed_growth_schedule_is_refused(entries, tmp_path, capsys):
    (tmp_path / "schedule.json").write_text(json.dumps(entries))
    code, _ = error_of(f"python train.py --scaling_schedule_file={tmp_path}/schedule.json", capsys)
    assert code in (2, 65)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("python train.py --bach_size=3", "batch-size"),
        ("python trian.py --x 1", "train"),
        ("ls", "train"),
        ("", "train"),
        ("python train.py 'x", "quotation"),
        ("python train_titanic_v2.py extra", "argument"),
        (f"{ADVANCED} --batch-size x", "x"),
        (f"{ADVANCED} --model-preset tinny", "tinny"),
        ("python train.py config/none.py", "config/none.py"),
        ("python migrate_mlflow_databases.py --dry-run", "mlxlab migrate"),
        ("python analyze_tokens.py", "no counterpart"),
    ],
)
def test_a_line_that_cannot_be_translated_is_refused_in_one_line(line, named, capsys):
    code, message = error_of(line, capsys)
    assert code == 2
    assert named in message


@pytest.mark.parametrize(
    "line",
    [
        f"{ADVANCED} --azure-sas-token=?sv=2020&sig=hunter2",
        f"{ADVANCED} --azure_sas_tokn hunter2",
        f"{ADVANCED} --azure-sas-tokn -hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2 python -m src.training.train_advancd --dataset-id x",
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


@pytest.mark.parametrize(
    "value",
    ["it's", "a b", "null", "5", "a,b={c}", "\\", '"', "${oc.env:HOME}", "[a]", "~", "caf\u00e9"],
)
def test_text_reaches_the_config_as_it_was_typed(value):
    args = translate(shlex.join([*ADVANCED.split(), "--text-column", value])).args
    text = args["data.text_column"]
    overrides, issues = parse([text], multirun=False)
    assert not issues
    assert OmegaConf.create({"column": overrides[text].value()}).column == value


def test_the_command_and_the_notes_as_json(capsys):
    assert main([f"{TRAIN} --train t.csv --epochs 5 --workers 8", "json=true"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == [*BERT.split(), "data.source=t.csv", "trainer.epochs=5"]
    assert document["notes"] == ["workers: no counterpart"]


def test_a_credential_of_a_file_is_not_repeated(tmp_path, capsys):
    (tmp_path / "chats.py").write_text("dataset_name = 'https://me:hunter2@host/x'\n")
    new = command_of(f"python src/main.py --config {tmp_path}/chats.py", capsys=capsys)
    assert "data.source=" in new
    assert "hunter2" not in new


def test_quotation_marks_of_a_value_stay(capsys):
    line = "python generate_text.py --checkpoint o --prompt '\"Hi\"'"
    assert shlex.split(command_of(line, capsys=capsys))[-1] == 'prompt="Hi"'
