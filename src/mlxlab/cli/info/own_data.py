"""Checks rows of your own without training: what a run would read, leave out, split and learn."""

import math
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab import terminal
from mlxlab.cli.info.columns import column_table, show_columns
from mlxlab.cli.info.own_conversations import are_conversations, show_conversations
from mlxlab.cli.print_json import print_json
from mlxlab.config.issues import one_line
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.config.schema.signature import signature
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError, DataError
from mlxlab.program import join, list_override, path_override, quoted
from mlxlab.wording import counted

if TYPE_CHECKING:
    from mlxlab.data.labelled.rows import Rows
    from mlxlab.data.labelled.table.dataset import TableDataset
    from mlxlab.data.labelled.text_classification import TextClassificationDataset

MISSING = frozenset(
    {"na", "n/a", "nan", "null", "none", "?", "-"}
)  # labels that are probably missing ones
TARGETS = (
    "mlxlab.data.labelled.text_classification.TextClassificationDataset",
    "mlxlab.data.labelled.table.dataset.TableDataset",
)
ENCODING = "cp1252"  # which is tried for a file that is not UTF-8
SEARCHED_ROWS = 100_000  # for one that is not UTF-8
DROP = "data.on_overlap=drop"
LENGTH = (
    "epochs",
    "steps_per_epoch",
    "steps",
    "max_tokens",
)  # what is reported of the command that is printed
NEEDED = {"text_classification": ("text_column", "label_column"), "table": ("target",)}


def data(json: bool = False, *, args: list[str]) -> None:
    """Checks labelled rows or conversations, and prints the command that trains on them.

    Args:
        json: prints a JSON object instead.
    """
    from mlxlab.config.hydra.compose import Composer
    from mlxlab.config.hydra.overrides import typed_values

    typed = {_key(arg) for arg in args}
    if "data.source" not in typed:
        raise ConfigError(
            f"data.source=...: missing; expected the file or folder of your rows{_meant_source(args)}"
        )
    source = typed_values(args).get("data.source", "")
    if "data" not in typed and re.search(r"\.txt(\.gz|\.zst)?$", source):
        model = ["model=transformer", "data=streaming", path_override("data.source", source)]
        raise ConfigError(f"data.source={source}: text, not rows; see mlxlab info {join(model)}")
    if are_conversations(args, source):
        show_conversations(args, json)
        return
    if "data" not in typed:
        args = [f"data={'table' if 'data.target' in typed else 'text_classification'}", *args]
    unnamed = ["data.target=COLUMN"] if "data=table" in args and "data.target" not in typed else []
    config = Composer(conf_dir(), [*args, *unnamed]).checked_values(resolve=True)
    if "max_left_out" not in config["data"]:
        option = next(arg for arg in args if _key(arg) == "data")
        raise ConfigError(
            f"{option}: expected data=text_classification, data=table or data=instruct"
        )
    from mlxlab.data.labelled.columns import summarize

    if fault := _fault_of_encoding(config["data"]):
        args = [*args, f"data.reading.encoding={ENCODING}"]
        config = Composer(conf_dir(), [*args, *unnamed]).checked_values(resolve=True)
    rows = _open_rows(config["data"])
    columns = summarize(rows)
    if fault and not json:
        terminal.show(f"{fault}; read as {ENCODING} here{_example(rows)}\n")
    needed = [
        config["data"][key]
        for key in NEEDED["table" if "target" in config["data"] else "text_classification"]
    ]
    names = {each.name for each in columns}
    if not typed & {
        "data.text_column",
        "data.label_column",
        "data.target",
    } and not names.issuperset(map(str, needed)):
        others = without_keys(args, "data", "data.target")
        show_columns(columns, rows, others, json, is_table="target" in config["data"])
        return
    if not json:
        terminal.show(f"{column_table(columns, rows)}\n")  # also where the rows have a fault
    checked = _check(config)
    extra = checked.pop("extra")
    if DROP in extra:  # the run that is proposed has fewer rows
        try:
            shorter = _check(config | {"data": config["data"] | {"on_overlap": "drop"}})
            checked |= {key: shorter[key] for key in LENGTH}
        except DataError:  # too few rows are left
            extra.remove(DROP)
    train = f"mlxlab train {join([*without_keys(args, *map(_key, extra)), *extra])}"
    report = {"columns": [each._asdict() for each in columns], **checked, "train": train}
    if json:
        print_json(report)
    else:
        lines = [
            *checked["messages"],
            *_doubtful_classes(checked["classes"]),
            *_faultless(checked),
            _length(checked),
        ]
        lines.append(f"train on it: {train}")
        terminal.show("\n".join(filter(None, lines)))


def _meant_source(args: list[str]) -> str:
    """A suggestion for a file that was typed without `data.source=`, or with a similar key."""
    known = {name for target in TARGETS if (keys := signature(target)) for name in keys.keys}
    for arg in args:
        key, equals, text = arg.partition("=")
        if not arg.startswith("-") and (
            not equals or nearest(key.removeprefix("data."), known) == "source"
        ):
            return did_you_mean(quoted(f"data.source={text if equals else arg}"))
    return ""


def without_keys(args: Iterable[str], *keys: str) -> list[str]:
    """The overrides of other keys than these."""
    return [arg for arg in args if _key(arg) not in keys]


def _open_rows(node: dict[str, Any]) -> "Rows":
    from mlxlab.config.instantiate import instantiate
    from mlxlab.data.labelled.rows import RowReading, open_rows

    reading = instantiate(node["reading"], RowReading)
    return open_rows(
        node["source"], reading, project_root() / ".cache", "skip", None, node["max_left_out"]
    )


def _fault_of_encoding(node: dict[str, Any]) -> str:
    """The location and the error of the first row that is not UTF-8, if the whole file is probably in ENCODING.

    "" if it is not: its encoding is named, another row has letters in UTF-8, or ENCODING does not read it.
    """
    from mlxlab.config.instantiate import instantiate
    from mlxlab.data.labelled.rows import RowReading, read_chunks
    from mlxlab.data.text.document import ErrorBudget

    reading, errors = node["reading"], ErrorBudget("skip", max_fraction=1, max_logged=0)
    if reading["encoding"]:
        return ""
    with suppress(DataError):  # of a file without any row of UTF-8
        for table, _, _ in read_chunks(
            node["source"], instantiate(reading, RowReading), 10_000, errors=errors
        ):
            if not all(cell.isascii() for cells in table.values() for cell in cells if cell):
                return ""
            if errors.valid_records + errors.malformed_records >= SEARCHED_ROWS:
                break
    if errors.first_is_readable:
        with suppress(DataError):
            _open_rows(node | {"reading": reading | {"encoding": ENCODING}})
            return errors.first_error
    return ""


def _example(rows: "Rows") -> str:
    """The first cell that shows whether the encoding is right."""
    cells = (
        cell
        for name in rows.columns
        for cell in rows.column(name).to_pylist()
        if cell and not cell.isascii()
    )
    return f", for example {one_line(cell, 60)!r}" if (cell := next(cells, "")) else ""


def _check(config: dict[str, Any]) -> dict[str, Any]:
    """The data as a run of the config has it, but for rows that cannot be used, which are counted and left out."""
    from mlxlab import backend

    backend.prepare()
    from mlxlab.data.dataset import RunLength, auto_epochs
    from mlxlab.data.labelled.split import parse_overlap
    from mlxlab.experiment.build import build_data
    from mlxlab.models.build import build_backbone

    lenient = {"on_error": "skip", "max_left_out": 0.99, "prefetch": 0, "baselines": False}
    with tempfile.TemporaryDirectory() as folder:
        node = config["data"] | lenient
        dataset: TextClassificationDataset | TableDataset
        dataset = build_data(config | {"data": node}, project_root(), None, Path(folder))  # type: ignore[assignment]
    batches, trainer = dataset.train.batches_per_epoch, config["trainer"]
    epochs = auto_epochs(dataset, batches) if trainer["epochs"] == "auto" else trainer["epochs"]
    length = RunLength(trainer["max_steps"], epochs, trainer["max_tokens"])
    overlaps = [*filter(None, map(parse_overlap, dataset.sources))]
    lengths, position_limit = (
        dataset.row_lengths,
        build_backbone(config["model"], vocab_size=1).position_limit,
    )
    return {
        "task": dataset.task.kind,
        "rows": dataset.num_examples,
        "left_out": lengths.left_out,
        "truncated": lengths.too_long,
        "classes": dict(zip(dataset.task.labels, dataset.class_counts, strict=False)),
        "overlaps": [each._asdict() for each in overlaps],
        "epochs": epochs,
        "steps_per_epoch": batches,
        "steps": length.steps(batches, dataset.train.tokens_per_batch),
        "max_tokens": length.max_tokens,
        "messages": [
            *dataset.sources,
            *([lengths.advise(position_limit)] if lengths.are_many else []),
        ],
        "extra": _remedies(config["data"], dataset.examples.split.left_out_share, bool(overlaps)),
    }


def _remedies(node: dict[str, Any], share: float, overlaps: bool) -> list[str]:
    """The overrides with which a run leaves out the rows that cannot be used, and duplicates across the split."""
    needed = math.ceil(100 * share - 1e-9) / 100
    extra = ["data.on_error=skip"] if share and node["on_error"] == "strict" else []
    extra += [f"data.max_left_out={needed:g}"] if needed > node["max_left_out"] else []
    return [*extra, DROP] if overlaps and node["on_overlap"] != "drop" else extra


def _doubtful_classes(classes: Iterable[str]) -> list[str]:
    """Lines on classes whose names stand for a missing value in many files, or differ in case only."""
    lines, spellings = list[str](), dict[str, list[str]]()
    for name in classes:
        spellings.setdefault(name.casefold(), []).append(name)
    for names in filter(lambda names: len(names) > 1, spellings.values()):
        lines.append(
            f"classes {', '.join(map(repr, names))} differ in case only, and count as different ones"
        )
    if missing := [name for key, names in spellings.items() if key in MISSING for name in names]:
        override = list_override("data.reading.missing", missing)
        which = ", ".join(map(repr, missing))
        lines.append(
            f"class {which}: if it stands for a missing label, {override} counts it as one"
        )
    return lines


def _faultless(checked: dict[str, Any]) -> list[str]:
    """A line on the faults that the messages do not name because there are none."""
    lines = [] if checked["left_out"] else ["every row has a label and can be read"]
    return (
        lines
        if checked["overlaps"]
        else [*lines, "no row has the same input as one of another split"]
    )


def _length(checked: dict[str, Any]) -> str:
    epochs, batches, steps = checked["epochs"], checked["steps_per_epoch"], checked["steps"]
    if not batches:
        return ""
    tokens = f"trainer.max_tokens={checked['max_tokens']}" if checked["max_tokens"] else ""
    if steps is None:
        return f"until {tokens} are read; an epoch is {counted(batches, 'step')}" if tokens else ""
    sooner = f"; {tokens} may end the run sooner" if tokens else ""
    if epochs and steps == epochs * batches:
        length = f"{counted(epochs, 'epoch')} of {counted(batches, 'step')}"
        return f"{length}, unless trainer.epochs sets another number{sooner}"
    return f"{counted(steps, 'step')} (trainer.max_steps); an epoch is {counted(batches, 'step')}{sooner}"


def _key(arg: str) -> str:
    return arg.partition("=")[0]
