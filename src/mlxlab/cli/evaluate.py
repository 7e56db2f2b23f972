"""Evaluates a trained model, on the validation data of its run or on other data.

    mlxlab evaluate run=RUN_FOLDER [checkpoint=best] [max_batches=N] [trust_folder=true]
    mlxlab evaluate run=RUN_FOLDER data.source=FILE [data.KEY=VALUE ...]
    mlxlab evaluate run=RUN_FOLDER pretrained=FILE_OR_FOLDER [data.KEY=VALUE ...]
    mlxlab evaluate run=GGUF_FILE_OR_FOLDER data.source=FILE [data.KEY=VALUE ...]

run          the folder of a run; or a language model as it was published, a GGUF file or a folder of Hugging Face's:
             its loss on a text, in rows of data.seq_len tokens (1,024)
pretrained   a language model as it was published, evaluated in place of the run's on the same data: the baseline of a
             run that began with it. It must have the tokenizer of the run
data.source  text as data=streaming takes it, all of it; conversations as data=instruct does; for a model of labelled
             rows a file with its columns and labels, or `test`: the 418 test rows of the Titanic
slices       columns by whose values the main metric is shown too, such as slices=[Sex]
data.KEY     another key of the run's data: text_column, seq_len, reading.split, max_valid_examples

source= and input= are short for data.source=, on_error= for data.on_error= and max_left_out= for data.max_left_out=.

Data is read with the tokenizer and the labels of the run. For a model of labelled rows it prints the metrics with
95 % intervals, and those of the baselines of the run on the same rows; on other rows than those of the run they are
fitted again, where its training data can be read. Where several labels may hold, each does from the threshold on with
which `predict` answers; on the validation data, which chose it, from probability 0.5 on.
"""

import logging
from pathlib import Path

from mlxlab import terminal
from mlxlab.cli.app import prepare_inference, print_json
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Size
from mlxlab.terminal.messages import announce

ALIASES = {
    "source": "data.source",
    "input": "data.source",
    "on_error": "data.on_error",
    "max_left_out": "data.max_left_out",
}
TEXT_DEFAULTS = ["model=transformer", "data=streaming"]  # the keys of a text, for no run
log = logging.getLogger(__name__)


def evaluate(
    run: Path,
    checkpoint: str = "best",
    pretrained: str | None = None,
    max_batches: Size | None = None,
    slices: list[str] | None = None,
    trust_folder: bool = False,
    json: bool = False,
    **data: str,
) -> None:
    """Prints the metrics.

    Args:
        run: a run folder, or a language model as it was published: a GGUF file, or a folder with config.json.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        pretrained: folder, GGUF file or hub id of a language model to evaluate in place of that of the run.
        max_batches: batches at most; null takes all.
        slices: columns of labelled rows, by whose values the main metric is shown too.
        trust_folder: reads data from an address that the run names; for folders of your own.
        json: prints JSON instead of a table: metrics, intervals, baselines, and their gains, which are intervals of how
            much better the model is.
    """
    from mlxlab.inference.text_generator import is_published

    published = is_published(run)
    if published:
        if pretrained is not None:
            raise ConfigError(f"pretrained={pretrained}: expected the folder of a run, got {run}")
        if slices:
            raise ConfigError("slices: expected a model of labelled rows")
        if "source" not in data:
            raise ConfigError(f"run={run}: expected data.source=FILE, the text to evaluate on")
    loading = announce(f"loading {pretrained or run}")
    prepare_inference()
    from mlxlab.config.hydra.compose import compose_checked
    from mlxlab.evaluation.evaluate_run import evaluate_published, evaluate_restored
    from mlxlab.inference.restore import restore_model

    subject = str(pretrained or run)
    if published:
        with loading:
            defaults = compose_checked(TEXT_DEFAULTS)["data"]
        result = evaluate_published(run, defaults, data, max_batches)
    else:
        with loading:
            restored = restore_model(run, checkpoint)
        if pretrained is None:
            subject = f"step {restored.checkpoint.step} of {run}"
        result = evaluate_restored(
            restored,
            run,
            data,
            pretrained=pretrained,
            max_batches=max_batches,
            slices=slices or (),
            trusted=trust_folder,
        )
    first, *others = result.description.split("\n")
    for line in (f"{first}; {subject}", *others):
        log.info(line)
    if json:
        print_json(result.as_json())
    else:
        terminal.show(result.as_text(Path(data.get("source", "")).name))
