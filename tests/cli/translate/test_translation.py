"""Command lines of the documents of old programs become the commands that they stand for, and these compose."""

import pytest

from mlxlab.cli.translate import check
from mlxlab.cli.translate.translation import translate
from mlxlab.errors import ConfigError

BERT, STREAMING = "model=bert data=titanic", "model=transformer data=streaming trainer=optimized"
DISTILL = "nproc=4 model=transformer trainer=distill"
TRAIN, ADVANCED = "python mlx_bert_cli_v2.py train", "python -m src.training.train_advanced --dataset-id a/b"
LINES = {  # old -> new
    f"{TRAIN} --train T --epochs 5": f"{BERT} data.source=T trainer.epochs=5",
    "python train_optimized.py --base_batch_size 32 --max_batch_size 64": f"{BERT} trainer=optimized"
    " data.batch_size=32 callbacks.adaptive_batch.min=16 callbacks.adaptive_batch.max=64",
    f"{TRAIN} --batch-size 16 --max-batch-size 64 --dynamic-batch": f"{BERT} trainer=optimized data.batch_size=16"
    " callbacks.adaptive_batch.min=8 callbacks.adaptive_batch.max=64",
    f"{TRAIN} --model-type cnn_hybrid --cnn-kernels 2,3,4 --cnn-filters 128": "model=cnn_hybrid data=titanic"
    " model.kernel_sizes=[2,3,4] model.num_filters=128",
    f"{TRAIN} -t T -b 16 --grad-accum 2 --eval-steps 100 --save-steps=50": f"{BERT} trainer=optimized data.source=T"
    " data.batch_size=32 trainer.step.accumulate=2 trainer.eval_every=50 checkpointing.every_steps=25",
    f"{TRAIN} --train T --config configs/production.json": f"experiment=production {BERT} data.source=T",
    f"{TRAIN} --config configs/production.yaml": f"experiment=production {BERT}",
    f"{TRAIN} --train T --resume 'output/run_*/checkpoints/best'": f"{BERT} data.source=T resume=best",
    f"{TRAIN} --resume output/run_1/checkpoints/best": f"{BERT} resume=output/run_1/best",
    f"{TRAIN} --early-stopping 0 --no-mlflow --experiment x": f"{BERT} tracking=none"
    " callbacks.early_stopping.patience=null",
    f"{TRAIN} --output 'my runs' --run-name 5": f"{BERT} hydra.run.dir='my_runs/run_${{now:%Y%m%d_%H%M%S}}' name='5'",
    "python run_production.py --config thorough": "experiment=standard model=bert data=titanic trainer.epochs=10"
    " data.batch_size=16 trainer.learning_rate=1e-5 trainer.schedule.warmup=200 trainer.eval_every=100",
    "python train_cnn_hybrid.py --train-path T --compare-models --cnn-kernel-sizes 2 3 --optimizer sgd --momentum 0.8":
        "-m model=bert,cnn_hybrid data=titanic trainer/optimizer=sgd data.source=T trainer.optimizer.momentum=0.8",
    "torchrun --nproc_per_node=4 src/main.py --explicit-prefetching --mixed-precision": f"{DISTILL} data=instruct"
    " trainer/step=optimized trainer.teachers=[allenai/OLMo-2-1124-7B-SFT] model.pretrained=allenai/OLMo-2-0425-1B-SFT"
    " data.source=allenai/tulu-3-sft-mixture trainer.step.dtype=bfloat16",
    "torchrun --nproc_per_node=4 src/main_simple.py --mixed-precision": f"{DISTILL} data=streaming"
    " trainer/step=optimized trainer.teachers=[Qwen/Qwen2.5-3B-Instruct] model.pretrained=Qwen/Qwen2.5-0.5B-Instruct"
    " data.source=HuggingFaceTB/cosmopedia-100k trainer.step.dtype=bfloat16",
    "python train_refactored.py": STREAMING,
    "python train.py --batch_size=32 --gradient_accumulation_steps=1": f"{STREAMING} data.batch_size=32"
    " trainer.step.accumulate=1",
    "python train.py --n_layer=6 --decay_lr=False --warmup_iters=5": f"{STREAMING} model/size=none"
    " trainer/schedule=constant model.hidden_size=768 model.num_layers=6 model.num_heads=12"
    " model.intermediate_size=3072 trainer.schedule.warmup=0",
    "torchrun --standalone --nproc_per_node=2 train.py --batch_size=4 --gradient_accumulation_steps=8 --beta2=0.99"
    " --learning_rate=1e-3 --min_lr=1e-4": f"nproc=2 {STREAMING} data.batch_size=32 trainer.step.accumulate=4"
    " trainer.optimizer.betas=[0.9,0.99] trainer.learning_rate=1e-3 trainer.schedule.final_lr_ratio=0.1",
    f"{ADVANCED} --model-preset tiny --auto-vocab-size --epochs 3": f"{STREAMING} model/size=tiny data.source=a/b"
    " data.tokenizer.vocab_size=auto trainer.epochs=3",
    f"{ADVANCED} --model-preset small --epochs 5 --val-split validation --eval-every 500": f"{STREAMING}"
    " model/size=small data.source=a/b trainer.epochs=5 data.validation.split=validation trainer.eval_every=500"
    " trainer.eval_batches=50",
    f"{ADVANCED} --d-model 768 --num-layers 12 --num-heads 12 --d-ff 3072 --vocab-size 20000": f"{STREAMING}"
    " model/size=medium data.source=a/b data.tokenizer.vocab_size=20000",
    f"{ADVANCED} --model-preset small --batch-size 16 --gradient-accumulation-steps 4 --use-mixed-precision"
    " --shuffle-buffer-size 5000": f"{STREAMING} model/size=small data.source=a/b data.batch_size=64"
    " trainer.step.accumulate=4 trainer.step.dtype=bfloat16 data.shuffle.window=5000",
    f"{ADVANCED} --model-preset tiny --resume-from output_advanced/checkpoint_step_1000 --epochs 10": f"{STREAMING}"
    " model/size=tiny data.source=a/b resume=output_advanced/step-1000 trainer.epochs=10",
    f"{ADVANCED} --no-swiglu --activation relu --use-lora --lora-rank 4 --save-every 0": f"{STREAMING}"
    " model/adapter=lora data.source=a/b model.mlp_type=relu model.adapter.rank=4 checkpointing.every_steps=1000000000",
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
    return [arg.replace(", ", ",").replace("my runs", "my_runs") for arg in args]


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


def test_defaults_are_those_of_the_old_program_and_typed_flags_win():
    args = translate(f"{TRAIN} --lr 1e-3 --no-augment", defaults=True).args
    assert {"trainer.learning_rate=1e-3", "trainer.epochs=5", "data.seq_len=256", "data.augment.copies=1"} <= set(args)
    assert len(args) == len({arg.partition("=")[0] for arg in args})


def test_flags_without_a_counterpart_are_explained():
    notes = "\n".join(translate(f"{ADVANCED} --streaming True --azure-account-name me --activation relu").notes)
    assert "--streaming: no counterpart: there never was such a flag" in notes
    assert "--azure-account-name: no counterpart: never on a command line" in notes
    assert "AZURE_STORAGE_ACCOUNT_NAME" in notes
    assert "--activation: no counterpart: no effect without --no-swiglu" in notes
    assert "me\n" not in notes


def test_a_program_without_a_counterpart_says_why():
    with pytest.raises(ConfigError, match=r"migrate_mlflow_databases.py: no counterpart: stores of old programs"):
        translate("python migrate_mlflow_databases.py --dry-run")
