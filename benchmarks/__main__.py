"""Measures speed and memory of the main features; variants alternate within one run.

    python -m benchmarks suite=saving [size=small] [rounds=5]
    python -m benchmarks suite=cloud [size=tiny] [rounds=7] [steps=60] [rows=32] [megabytes=20]
    python -m benchmarks suite=tracking [size=nano] [rounds=9]
    python -m benchmarks suite=example_losses [size=nano] [rounds=60]
    python -m benchmarks suite=generate [size=nano] [rounds=5]
    python -m benchmarks suite=decoding [shape=nano,tiny,smollm2] [compare_with=torch,mlx_lm] [rounds=5]
    python -m benchmarks suite=evaluation [size=nano,tiny] [model=transformer,bert] [compare_with=torch] [rounds=5]
    python -m benchmarks suite=checkpoints [size=small] [compare_with=torch] [rounds=7]
    python -m benchmarks suite=tokenizer_training source=<text file> [vocab_size=8192] [rounds=5]
    python -m benchmarks suite=distill [rounds=9]
    python -m benchmarks suite=steps [size=nano,tiny] [model=transformer,bert] [compare_with=torch,mlx_lm] [rounds=5]
                         [dropout=0] [bfloat16=true] [isa=avx2] [rows=8] [length=256] [vocabulary=5000]
                         [only=simple,optimized] [save=benchmarks/steps]
    python -m benchmarks suite=operators [size=nano] [rounds=15]
    python -m benchmarks suite=memory [size=small] [rounds=1] [vocabulary=4096]
    python -m benchmarks suite=fsdp [size=small] [nproc=2] [rows=2] [length=32] [steps=5]
    python -m benchmarks suite=overlap [size=nano] [nproc=2] [rows=8] [length=256] [rounds=7] [step=optimized]
    python -m benchmarks suite=startup [size=nano] [rounds=5]
    python -m benchmarks suite=against_commit [commit=7b46dabc] [rounds=5]
    python -m benchmarks suite=native_build [rounds=5]
    python -m benchmarks suite=shakespeare compare_with=torch source=<tinyshakespeare.txt> [rounds=2000]
    python -m benchmarks suite=loader source=<text> [rounds=5]
    python -m benchmarks suite=streaming_memory source=<file> [rounds=1] [min_bytes=80000000]
    python -m benchmarks suite=curriculum file=<text> [steps=240] [seeds=3] [plot=curriculum.png]
    python -m benchmarks suite=labelled [rows=1000000] [model=bert] [rounds=1]
    python -m benchmarks suite=qlora model=<GGUF file or folder> [rows=2] [length=256] [rounds=5] [slow_rounds=1]
                         [compare_with=mlx_lm]
    python -m benchmarks suite=growth file=<text> [steps=320] [plot=growth.png]
    python -m benchmarks suite=predict_memory run=<run folder of data=titanic> [rows=10000]
    python -m benchmarks suite=runs [runs=10000] [rows=1000000] [rounds=5]
    python -m benchmarks suite=asha [orders=200] [seeds=5]
    python -m benchmarks suite=tpe [trials=40] [seeds=5] [kills=3]
    python -m benchmarks suite=launchers [jobs=8] [rounds=3]
    python -m benchmarks suite=zoo [only=llama,qwen3] [seconds=120] [gigabytes=12] [workers=1]
    python -m benchmarks suite=sweep_winner [sweeps=200] [configurations=20] [effect=2] [seeds=3]
    python -m benchmarks suite=tables [only=known,drawn,wine] [folds=5] [settings='model.members=4'] [results=FOLDER]
    python -m benchmarks suite=texts [only=tweets,newsgroups] [rows=100,1000] [subsets=5] [results=FOLDER]
    python -m benchmarks suite=claims [only=sizes,titanic_run]

saving    overhead of saving a checkpoint, in the foreground and in the background
cloud     overhead of copies of checkpoints in an object store, and in one with a limited bandwidth
tracking  overhead of logging every step, and startup delay with an unreachable tracking server
example_losses  overhead of logging the loss of every example
generate  generation speed with and without key-value cache, for batch sizes 1 and 8
decoding  generation speed compared with mlx-lm and transformers, up to the shape of SmolLM2-135M
evaluation  seconds of an evaluation of a language model, compared with PyTorch
checkpoints  seconds to write and to read a checkpoint, compared with torch.save and torch.load
tokenizer_training  seconds to train a byte-level BPE, compared with Hugging Face tokenizers
steps     seconds and memory of a training step: mlxlab, plain MLX, mlx-lm's trainer, PyTorch eager and compiled
operators  speed of each operator for Linux CPU compared with that of MLX
memory    peak memory of a step: full batch and micro-batches, activations stored and recomputed, all logits and chunks
fsdp      memory per process and seconds of a step with trainer.parallel=none, data and fsdp
overlap   seconds of a data-parallel step without sums of gradients, with sums after the backward pass, and during it
startup   seconds to the first step of a Titanic run, and overhead of the training loop
against_commit  CPU seconds of a start, a step, a job of a sweep and the loader, compared with an earlier commit
native_build  seconds to build the native kernels while a run trains, to find and to load them; their part of the wheel
shakespeare  experiment=shakespeare_char and the same model in plain PyTorch: seconds and validation loss
loader    speed of the text loader in tokens/s, and time to seek to a position
streaming_memory  resident memory of the text loader after N and 10 N documents, streamed and in memory
curriculum  rare tokens served and validation loss with data/order=curriculum and with a shuffle, at equal tokens
labelled  seconds to the first step and memory of data=text_classification on a generated file of many rows
qlora     a training step with adapters on a base in 4 bits, compared with float32 and with MLX's own product
growth    a model that grows while it trains, compared with its final and its first size at equal compute
predict_memory  resident memory of `predict` over N and 10 N rows
runs      seconds of the commands of `runs` on a store of many runs and rows of metrics
asha      steps of ASHA on Titanic, relative to a grid, and whether it finds the winner of the grid
tpe       the best trial of TPE with ASHA on Titanic, compared with that of as many random trials; killed and continued
launchers  CPU seconds of a further job of a sweep with each launcher: one that does nothing, and a nano run
zoo       every architecture of mlx-lm at a tiny size: trained, killed and resumed, exported and reloaded; exit code 1
          if one passes other columns than benchmarks/models/zoo_expected.json says
sweep_winner  how often a sweep's report names a winner, of equal configurations and with a better one; exit code 1 if
          in more than 5 % of the sweeps of equal ones
tables    data=table by its default command against five methods of scikit-learn, on 32 tables of Python packages
texts     data=text_classification by its default command, with and without MiniLM, against linear models
claims    measures claims of the documentation by their commands, records the values, makes docs/explanation/claims.md
distill   a distillation step with a queried teacher and with cached soft targets, and its components

Prints Markdown: medians, and ratios of medians. save=PATH also writes PATH.md and PATH.json. For reliable figures
run nothing else on the machine.
"""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import UnexpectedResults
from mlxlab.cli.app import run_subcommand
from mlxlab.cli.command import parse_args
from mlxlab.errors import ConfigError, WriteError
from mlxlab.terminal.nearest import suggestion

SUITES = {  # module and function of benchmarks
    "saving": ("runs.saving", "saving"),
    "cloud": ("runs.cloud", "cloud"),
    "tracking": ("runs.tracking", "tracking"),
    "example_losses": ("runs.example_losses", "example_losses"),
    "generate": ("models.generation", "generation"),
    "decoding": ("models.decoding", "decoding"),
    "evaluation": ("models.evaluation", "evaluation"),
    "checkpoints": ("runs.checkpoints", "checkpoints"),
    "tokenizer_training": ("data.tokenizer_training", "tokenizer_training"),
    "memory": ("memory.memory", "memory"),
    "fsdp": ("processes.fsdp", "fsdp"),
    "overlap": ("processes.overlap", "overlap"),
    "operators": ("steps.formulations", "operators"),
    "distill": ("models.distilling", "distilling"),
    "steps": ("steps.steps", "steps"),
    "startup": ("processes.startup", "startup"),
    "against_commit": ("processes.against_commit", "against_commit"),
    "native_build": ("processes.native_build", "native_build"),
    "shakespeare": ("steps.shakespeare", "shakespeare"),
    "loader": ("data.loader", "loader"),
    "streaming_memory": ("memory.streaming_memory", "streaming_memory"),
    "curriculum": ("data.curriculum", "curriculum"),
    "labelled": ("data.labelled", "labelled"),
    "growth": ("models.growth", "growth"),
    "qlora": ("steps.qlora", "qlora"),
    "predict_memory": ("memory.predict_memory", "predict_memory"),
    "runs": ("runs.runs", "runs"),
    "asha": ("sweeps.pruned_search", "asha"),
    "tpe": ("sweeps.pruned_search", "tpe"),
    "launchers": ("sweeps.launchers", "launchers"),
    "zoo": ("models.zoo", "zoo"),
    "sweep_winner": ("sweeps.sweep_winner", "sweep_winner"),
    "tables": ("tables.tables", "tables"),
    "texts": ("texts.texts", "texts"),
    "claims": ("claims.measure", "measure_claims"),
}
LISTS = {  # keys with several values, separated by commas
    "size": ("nano", "tiny", "small", "medium", "large", "xlarge"),
    "shape": ("nano", "tiny", "small", "medium", "large", "xlarge", "smollm2"),
    "model": ("transformer", "bert", "cnn_hybrid"),
    "compare_with": ("torch", "mlx_lm"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_subcommand(argv, act=_measure, show_help=lambda _: __doc__.strip())


def _measure(args: list[str]) -> None:
    suite, save, options = parse(args)
    from mlxlab import backend

    backend.prepare()
    module, function = SUITES[suite]
    failure: UnexpectedResults | None = None
    try:
        text = getattr(importlib.import_module(f"benchmarks.{module}"), function)(**options)
    except UnexpectedResults as error:
        failure, text = error, error.report
    print(text)
    if save is not None:
        _save(Path(save).expanduser(), text, {"suite": suite, **options, **backend.describe()})
    if failure is not None:
        raise failure


def parse(args: list[str]) -> tuple[str, str | None, dict[str, Any]]:
    """The suite, the path of its report, and its options: the parameters of its function.

    Raises:
        ConfigError: an unknown suite or option, or an invalid value.
    """
    suite = next((arg.partition("=")[2] for arg in args if arg.startswith("suite=")), "")
    if suite not in SUITES:
        raise ConfigError(
            f"suite={suite}: expected one of {', '.join(SUITES)}{suggestion(suite, SUITES)}"
        )
    module, function = SUITES[suite]
    prefixes = (
        ("suite=",) if suite == "steps" else ("suite=", "save=")
    )  # `save` is a parameter of `steps`
    save = [arg.partition("=")[2] for arg in args if arg.startswith("save=") and suite != "steps"]
    own = [arg for arg in args if not arg.startswith(prefixes)]
    _, options = parse_args(own, f"benchmarks.{module}.{function}")
    for key, value in options.items():
        is_list = key in LISTS and (suite, key) != ("qlora", "model")
        for item in value.split(",") if is_list else []:
            if item not in LISTS[key]:
                raise ConfigError(
                    f"{key}={value}: expected {', '.join(LISTS[key])}{suggestion(item, LISTS[key])}"
                )
    if options.get("rounds", 1) < 1:
        raise ConfigError(f"rounds={options['rounds']}: expected a whole number >= 1")
    if not 0 <= (options.get("dropout") or 0) < 1:
        raise ConfigError(f"dropout={options['dropout']}: expected a number >= 0 and < 1")
    return suite, save[-1] if save else None, options


def _save(path: Path, text: str, settings: dict[str, Any]) -> None:
    from benchmarks.alternate import figures

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.md").write_text(text + "\n")
        Path(f"{path}.json").write_text(
            json.dumps({**settings, "tables": figures(text)}, indent=1, default=str) + "\n"
        )
    except OSError as error:
        raise WriteError(f"save={path}: {error.strerror or error}") from None


if __name__ == "__main__":
    import sys

    sys.exit(main())
