"""The Titanic data set: sentences about passengers, classified into died and survived.

`titanic.yaml` holds the rules of the sentences; PROVENANCE.md says where the rows come from.
"""

import csv
from dataclasses import dataclass, replace
from functools import cache as memoize
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Unpack

import numpy as np
import yaml

from mlxlab.data.dataset import BaselineInputs, Table
from mlxlab.data.labelled.dataset import LabelledExamples
from mlxlab.data.labelled.encoder import LabelledEncoder, restore_encoder
from mlxlab.data.labelled.inputs import Run, TextInputs
from mlxlab.data.labelled.options import BatchOptions, check_split
from mlxlab.data.labelled.row_split import prepare_rows
from mlxlab.data.labelled.rows import Rows, open_rows
from mlxlab.data.labelled.sentences import SentenceRenderer, SentenceRules, restore_sentences
from mlxlab.data.sources.open import Reading
from mlxlab.errors import DataError
from mlxlab.files.untrusted import validate
from mlxlab.schema.constraints import FilePath, Ge, Le, MinLen, Seed

FOLDER = Path(__file__).parent
FILES = {None: "titanic.csv", "synthetic": "synthetic.csv"}
NUM_TRAINING = 891  # real rows that Kaggle's split trains on; the others are for a final report
BASIC = ["basic", "narrative", "descriptive", "story"]
ROW_OPTIONS: dict[str, object] = {  # the keys of other labelled rows
    "kind": None,
    "task": "single",
    "label_delimiter": None,
    "positive_class": None,
    "test_source": None,
    "group_column": None,
    "time_column": None,
    "on_overlap": "warn",
    "on_error": "strict",
    "max_left_out": 0.0,
}


@dataclass(frozen=True)
class Augment:
    """Repeats training rows within an epoch, each time with a newly drawn template.

    Args:
        copies: repetitions of each training row per epoch.
    """

    copies: Annotated[int, Ge(1), Le(1000)]


class TitanicDataset(LabelledExamples):
    """Sentences about passengers, labelled `died` or `survived`: a `DataModule`.

    Groups of passengers and tokenizer are fitted on the training rows alone. Rows 892..1309 of the real data are used
    by `evaluate data.source=test` only, never for training or for any choice.

    Args:
        source: a CSV file with Kaggle's columns; null takes the real rows, `synthetic` generated ones.
        valid_source: a CSV file to validate on; null holds out some of the rows.
        templates: sentences to draw from; `brief` and `full` also say who shares a ticket, `group` how the women and
            children of the same party fared (by training labels).
        augment: how often a training row is shown.

    Raises:
        InputNotFoundError, DataError: a source is missing or malformed.
        ConfigError: `fold` is not a fold of `folds`.
    """

    format_name = "mlxlab.titanic/2"

    def __init__(
        self,
        source: FilePath | None,
        valid_source: FilePath | None,
        templates: Annotated[
            list[Literal["basic", "narrative", "descriptive", "story", "brief", "full", "group"]],
            MinLen(1),
        ],
        augment: Augment,
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        pretrained: Path | None = None,
        **options: Unpack[BatchOptions],
    ) -> None:
        rules = load_rules()
        row_options: Any = {
            **ROW_OPTIONS,
            **options,
            "target": rules.target,
            "valid_source": valid_source,
        }
        check_split(row_options)
        rows = _open_rows(source, valid_source, cache)
        passengers = rules.read(rows.table(rows.columns, np.arange(len(rows))), rows.location)
        ids = np.array([passenger[rules.id_column] for passenger in passengers])
        if len(set(ids)) < len(ids):
            raise DataError(f"{rows.name}: a {rules.id_column} occurs twice")
        split = prepare_rows(rows, row_options, list(rules.types), [], rules.types, seed, ids)
        names = tuple(rules.label_names.values())
        labels = replace(split.labels, names=names, cells=split.labels.names)
        renderer = SentenceRenderer(rules, list(dict.fromkeys(templates)), seed)
        renderer = renderer.fit([passengers[row] for row in split.train])
        run = Run(cache, parameters, width, pretrained)
        split = replace(split, labels=labels)
        inputs = TextInputs(split, renderer, options, run)
        # The baseline reads the four basic sentences, so that it is the same for all templates.
        texts = {"": replace(renderer, names=BASIC)}
        if renderer.names != BASIC:
            texts["same_sentences"] = renderer
        rules_of_thumb = {"female_rule": _survive_if_female}
        baselines = BaselineInputs(None, texts, plain=True, rules=rules_of_thumb)
        super().__init__(split, inputs, renderer, baselines, options, seed, augment.copies)

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        restore = partial(restore_sentences, spec=load_rules())
        return restore_encoder(folder, TitanicDataset.format_name, restore)

    @staticmethod
    def test_rows() -> Table:
        """The 418 real rows 892..1309, with labels."""
        with (FOLDER / FILES[None]).open(newline="") as file:
            rows = list(csv.DictReader(file))[NUM_TRAINING:]
        return {name: [row[name] or None for row in rows] for name in rows[0]}


def _survive_if_female(table: Table) -> np.ndarray:
    is_female = np.array([cell == "female" for cell in table["Sex"]], np.float64)
    return np.stack([1 - is_female, is_female], axis=1)


@memoize  # The jobs of a sweep share it.
def load_rules() -> SentenceRules:
    text = (FOLDER / "titanic.yaml").read_text()
    return validate(yaml.safe_load(text), SentenceRules)


def _open_rows(source: str | None, valid_source: str | None, cache: Path) -> Rows:
    """The rows to train and to validate on; of the real ones those that are not for a final report."""
    paths = [str(FOLDER / FILES[source]) if source in FILES else source, valid_source]
    rules = load_rules()
    names = [*rules.types, rules.target]
    parts = [open_rows(path, Reading(), cache, columns=names) for path in paths if path]
    if source is None:
        parts[0] = parts[0]._replace(table=parts[0].table.slice(0, NUM_TRAINING))
    rows = Rows(parts)
    rows.name = "titanic-synthetic" if source == "synthetic" else "titanic"
    return rows
