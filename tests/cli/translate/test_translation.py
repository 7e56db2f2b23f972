"""Command lines of the documents of old programs become the commands that they stand for, and these compose."""

import pytest

from mlxlab.cli.translate import check, check_options, main
from mlxlab.cli.translate.translation import translate
from mlxlab.errors import ConfigError

BERT, STREAMING = "model=bert data=titanic", "model=transformer data=streaming trainer=optimized"
TRAIN, ADVANCED = (
    "python mlx_bert_cli_v2.py train",
    "python -m src.training.train_advanced --dataset-id a/b",
)
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
    f"{TRAIN} --output 'my runs' --run-name 5": f"{BERT} hydra.run.dir='my_runs/run_${{now:%Y%m%d_%H%M%S}}' name='5'",
    "python run_production.py --config thorough": "experiment=standard model=bert data=titanic trainer.epochs=10"
    " data.batch_size=16 trainer.learning_rate=1e-5 trainer.schedule.warmup=200 trainer.eval_every=100",
    "python train_cnn_hybrid.py --train-path T --compare-models --cnn-kernel-sizes 2 3 --optimizer sgd --momentum 0.8":
        "-m model=bert,cnn_hybrid data=titanic trainer/optimizer=sgd data.source=T trainer.optimizer.momentum=0.8",
    "python train_cnn_hybrid.py --use-highway false --use-dilated-conv False --use-attention-fusion false":
        "model=cnn_hybrid data=titanic model.highway=false model.dilations=[] model.fusion=concat",
    "python train.py --batch_size=32 --gradient_accumulation_steps=1": f"{STREAMING} data.batch_size=32"
    " trainer.step.accumulate=1",
    "python train.py --n_layer=6 --decay_lr=False --warmup_iters=5": f"{STREAMING} model/size=none"
    " trainer/schedule=constant model.hidden_size=768 model.num_layers=6 model.num_heads=12"
    " model.intermediate_size=3072 trainer.schedule.warmup=0",
    "torchrun --standalone --nproc_per_node=2 train.py --batch_size=4 --gradient_accumulation_steps=8 --beta2=0.99"
    " --learning_rate=1e-3 --min_lr=1e-4": f"nproc=2 {STREAMING} data.batch_size=32 trainer.step.accumulate=4"
    " trainer.optimizer.betas=[0.9,0.99] trainer.learning_rate=1e-3 trainer.schedule.final_lr_ratio=0.1",
    "python train.py --wandb_log=True --wandb_project=owt --wandb_run_name=first": f"{STREAMING} tracking=wandb"
    " tracking.wandb.project=owt name=first",
    "python train.py --wandb_log=False --wandb_project=owt": STREAMING,
    "python src/main.py --student allenai/OLMo-2-0425-1B-SFT --teacher outputs/olmo --dataset-name chats.jsonl":
        "model=mlx_lm trainer=distill data=instruct trainer.teachers=[outputs/olmo]"
        " model.pretrained=allenai/OLMo-2-0425-1B-SFT data.source=chats.jsonl",
    f"{ADVANCED} --no-swiglu --activation relu --use-lora --lora-rank 4 --save-every 0": f"{STREAMING}"
    " model/adapter=lora data.source=a/b model.mlp_type=relu model.adapter.rank=4 checkpointing.every_steps=1000000000",
    f"{ADVANCED} --cloud-provider gcs --cloud-bucket b --cloud-prefix 'p q' --cloud-region x --save-every 1":
        f"{STREAMING} cloud=gcs data.source=a/b cloud.bucket=b cloud.prefix='p_q' checkpointing.every_steps=1",
    f"{ADVANCED} --cloud-bucket b --cloud-prefix p": f"{STREAMING} data.source=a/b",
}  # fmt: skip
OTHERS = {  # old -> the new command, which composes no config
    "python mlx_bert_cli.py predict -t test.csv -c output/run_1/checkpoints/best": "predict run=output/run_1"
    " format=kaggle keep=[PassengerId] output=submission.csv input=test.csv",
    "python mlx_bert_cli.py benchmark --steps 20": "python -m benchmarks suite=steps rounds=20",
    "python mlx_bert_cli.py list-experiments": "runs list",
    "python mlx_bert_cli.py export -c output/run_1 -o out --format mlx": "export hf run=output/run_1 out=out",
    "python generate_text.py --checkpoint o/best_checkpoint --prompt Hi --top-p 0.9": "generate run=o checkpoint=best"
    " prompt=Hi top_p=0.9",
    "python sample.py --start=FILE:p.txt --top_k=5": "generate run=out prompts=p.txt top_k=5",
}


def without_blanks(args):
    return [
        arg.replace(", ", ",").replace("my runs", "my_runs").replace("p q", "p_q") for arg in args
    ]


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_old_documents_is_translated_and_composes(line):
    result = translate(line)
    expected = LINES[line].split()
    assert sorted(without_blanks(result.args)) == sorted(expected)
    check(result.overrides, multirun="-m" in result.args)


@pytest.mark.parametrize("line", OTHERS)
def test_programs_that_do_not_train_are_translated(line):
    result = translate(line)
    assert sorted([*result.to.split(), *result.args]) == sorted(OTHERS[line].split())
    check_options(result.to, result.args)


def test_defaults_are_those_of_the_old_program_and_typed_flags_win():
    args = translate(f"{TRAIN} --lr 1e-3 --no-augment", defaults=True).args
    assert {
        "trainer.learning_rate=1e-3",
        "trainer.epochs=5",
        "data.seq_len=256",
        "data.augment.copies=1",
    } <= set(args)
    assert len(args) == len({arg.partition("=")[0] for arg in args})


def test_what_a_published_olmo_and_a_data_set_of_the_hub_need_is_said_without_a_flag_too():
    result = translate("python src/main.py")
    assert {"trainer.teachers=[outputs/teacher]", "data.source=tulu-3-sft-mixture.jsonl"} <= set(
        result.args
    )
    teacher, rows = result.notes
    assert teacher.startswith(
        "allenai/OLMo-2-1124-7B-SFT: published weights of OLMo cannot be a teacher"
    )
    assert rows.endswith(
        "load_dataset('allenai/tulu-3-sft-mixture', split='train').to_json('tulu-3-sft-mixture.jsonl')"
    )


def test_flags_without_a_counterpart_are_explained():
    notes = "\n".join(
        translate(f"{ADVANCED} --streaming True --azure-account-name me --activation relu").notes
    )
    assert "--streaming: no counterpart: there never was such a flag" in notes
    assert "--azure-account-name: no counterpart: never on a command line" in notes
    assert "AZURE_STORAGE_ACCOUNT_NAME" in notes
    assert "--activation: no counterpart: no effect without --no-swiglu" in notes
    assert "me\n" not in notes


def test_a_program_without_a_counterpart_says_why():
    with pytest.raises(
        ConfigError, match=r"migrate_mlflow_databases.py: no counterpart: stores of old programs"
    ):
        translate("python migrate_mlflow_databases.py --dry-run")


def test_a_wrong_value_of_a_command_for_a_run_is_an_error(capsys):
    assert main(["python mlx_bert_cli.py predict -t t.csv -c output/run_1 --batch-size abc"]) == 2
    assert capsys.readouterr() == (
        "",
        "--batch-size abc: expected a whole number >= 1, got abc (text)\n",
    )


@pytest.mark.parametrize(
    ("line", "missing"),
    {
        "python mlx_bert_cli.py predict": {"--test": "input=...", "--checkpoint": "run=..."},
        "python mlx_bert_cli.py export": {"--checkpoint": "run=...", "--output": "out=..."},
        "python generate_text.py --prompt Hi": {"--checkpoint": "run=..."},
        "python -m src.training.train_advanced --seed 1": {"--dataset-id": "data.source=..."},
    }.items(),
)
def test_a_flag_that_the_old_program_required_is_named_with_its_option(line, missing, capsys):
    assert main([line]) == 0
    notes = capsys.readouterr().err
    assert notes.count("required by") == len(missing)
    for flag, option in missing.items():
        assert f"{flag}: required by" in notes
        assert f"and missing: add {option}\n" in notes
