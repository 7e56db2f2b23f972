"""Evaluates a trained model, on what its run validated on or on data of your own.

    evaluate.py run=RUN_FOLDER [checkpoint=best] [batches=N]
    evaluate.py run=RUN_FOLDER data.source=FILE [data.KEY=VALUE ...]

run          a run folder
checkpoint   best, last, emergency, step-N, or the path of a checkpoint
batches      batches at most; without it all
data.source  for a language model text, as data=streaming takes it: the whole of it; for a classifier a CSV with labels,
             or `test`: the 418 test rows of the Titanic
data.KEY     any other key of the run's data: text_column, seq_len, reading.split, validation.max_examples, ...

Text is read with the tokenizer of the run. Prints loss, perplexity and bits per byte, or a classifier's metrics.
"""

import signal
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.cli.app import run_program
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError

if TYPE_CHECKING:
    from mlxlab.config.schema.types import Kind
    from mlxlab.inference.eval_data import EvalData
    from mlxlab.inference.restore import RestoredModel

PLAIN = ("run", "checkpoint", "batches")
TOKENIZER = "tokenizer.path"
NOT_OF_OTHER_SOURCES = ("reading.split", "reading.config", "reading.revision", "validation.max_examples")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    try:
        return run_program(__doc__, argv, _evaluate)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _evaluate(words: list[str]) -> None:
    given, data = parse(words)
    if not given.get("run"):
        raise ConfigError("run=...: missing; expected the folder of a run")
    folder = Path(given["run"]).expanduser()
    from mlxlab import backend

    backend.prepare()
    from mlxlab.experiment.report import table
    from mlxlab.inference.restore import restore_model
    from mlxlab.training.evaluate import evaluate

    restored = restore_model(folder, Path(given.get("checkpoint", "best")))
    judged = _judged(restored, data, folder)
    print(f"{judged.line}; step {restored.checkpoint.step} of {folder}", file=sys.stderr)
    found = evaluate(restored.model, judged.batches, restored.encoder.task, limit=_number(given.get("batches")))
    assert found is not None
    print("\n".join(table("metric", list(found.metrics.items()))))


def parse(words: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The plain words, and the keys of `data`, with what was typed for each.

    Raises:
        ConfigError: an unknown key, one without a value, one twice.
    """
    given: dict[str, str] = {}
    data: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        into, key = (data, name.removeprefix("data.")) if name.startswith("data.") else (given, name)
        if into is given and name not in PLAIN:
            raise ConfigError(f"{word}: unknown key{suggestion(name, [*PLAIN, 'data.source'])}")
        if not equals or not text:
            raise ConfigError(f"{word}: expected {name}=...")
        if key in into:
            raise ConfigError(f"{word}: {name} stands here twice")
        into[key] = text
    return given, data


def _number(text: str | None) -> int | None:
    if text is not None and not (text.isdecimal() and int(text)):
        raise ConfigError(f"batches={text}: expected a whole number >= 1")
    return None if text is None else int(text)


def _judged(restored: "RestoredModel", typed: dict[str, str], folder: Path) -> "EvalData":
    from mlxlab.data.text.encoder import TextEncoder
    from mlxlab.data.titanic.encoder import PassengerEncoder
    from mlxlab.inference.eval_data import EvalData, row_batches, text_batches

    node = _node(restored, typed)
    if "source" not in typed:
        from mlxlab.config.paths import project_root
        from mlxlab.experiment.build import build_data

        found = build_data(restored.config | {"data": node}, project_root(), restored.facts, folder)
        return EvalData(found.valid, "what the run validated on")
    if isinstance(restored.encoder, PassengerEncoder):
        return row_batches(restored.encoder, node)
    if not isinstance(restored.encoder, TextEncoder):
        raise ConfigError(f"data.source={node['source']}: {node['_target_']} is evaluated on its validation data only")
    for key in NOT_OF_OTHER_SOURCES:
        if key not in typed:
            _set(node, key, None)
    return text_batches(restored.encoder, node)


def _node(restored: "RestoredModel", typed: dict[str, str]) -> dict[str, Any]:
    """The data node of the run with what was typed for it, every key checked."""
    from mlxlab.config.findings import format_issues
    from mlxlab.config.schema.validate import Validator

    if (path := typed.pop(TOKENIZER, None)) is not None:
        _same_tokenizer(restored, path)
    node = deepcopy(restored.config["data"])
    for name, text in typed.items():
        _set(node, name, text)
    faults = list(Validator().node(node, node["_target_"], "data"))
    if faults:
        raise ConfigError(format_issues(faults))
    return node


def _set(node: dict[str, Any], key: str, text: str | None) -> None:
    """Sets a dotted key to what was typed, as the type that the signature of its node has."""
    from mlxlab.config.schema.signature import signature

    first, _, rest = key.partition(".")
    if rest and isinstance(node.get(first), dict):
        _set(node[first], rest, text)
        return
    known = signature(node["_target_"]) if "_target_" in node else None
    node[key] = _value(known.keys[key].kind, text) if known and key in known.keys and text is not None else text


def _value(kind: "Kind", text: str) -> Any:
    import yaml

    from mlxlab.config.schema.types import Text, Union

    if text == "null":
        return None
    if any(isinstance(one, Text) for one in (kind.options if isinstance(kind, Union) else (kind,))):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # the check says what is expected


def _same_tokenizer(restored: "RestoredModel", path: str) -> None:
    from mlxlab.data.tokenizers.fit import existing_tokenizer

    existing_tokenizer(path, restored.facts)
