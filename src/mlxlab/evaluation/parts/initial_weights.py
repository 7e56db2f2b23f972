"""Initial weights of a new run (`model.init_from`): those of another run, of safetensors files, or of the hub."""

import inspect
import logging
import os
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mlxlab.checkpoint.arrays import Arrays, digest, evaluate_finite, read_safetensors
from mlxlab.checkpoint.names import KEYWORD
from mlxlab.checkpoint.store import load_named
from mlxlab.checkpoint.transfer import Layout, Rules, transfer
from mlxlab.checkpoint.transfer_report import TransferRecord, TransferReport
from mlxlab.config.instantiate import import_target
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.evaluation.parts.data import Config
from mlxlab.evaluation.parts.model import saved_architecture
from mlxlab.files.untrusted import refuse_links
from mlxlab.inference.restore import ENSEMBLE_FILE, find_run_dir
from mlxlab.models.adapters.arrays import layout_of, published_layout
from mlxlab.models.adapters.lora import merged_weight
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Model
from mlxlab.models.options import split_node
from mlxlab.models.pretrained.family import split_arrays
from mlxlab.models.pretrained.load import resolve
from mlxlab.models.pretrained.weights import FAMILIES, IGNORED_KEYS, read_arrays
from mlxlab.past_runs.rerun import override_text
from mlxlab.terminal.program import join
from mlxlab.tracking.mlflow.download import download_model, is_mlflow_uri

logger = logging.getLogger(__name__)

KEY = "model.init_from"
# What belongs to a task: new where the checkpoint has none for it, left out where the model has no place for it.
OF_A_TASK = re.compile(
    r"^(?:head|classifier|score)\.|^(?:bert\.|backbone\.(?:encoder\.)?)?pooler\."
)


class InitialWeights(NamedTuple):
    """Where the initial weights came from, and what became of them; `digest` is that of all arrays of the source."""

    source: str
    digest: str
    report: TransferReport

    def record(self) -> TransferRecord:
        weights = self.report.as_json()
        return TransferRecord(
            source=self.source, digest=self.digest, step=0, weights=weights, optimizer={}
        )

    def lines(self) -> list[str]:
        """What became of the weights, as the terminal shows it."""
        return self.report.lines(self.source)


@dataclass(frozen=True)
class WeightSource:
    """Weights that `init_from` names: in a checkpoint if `checkpoint` names one, else in the files at `path`."""

    name: str
    path: Path
    checkpoint: str = ""

    @property
    def tokenizer(self) -> Path | None:
        """The folder with the tokenizer of the weights; None if there is none next to them."""
        folder = self.path
        if self.checkpoint:
            run = find_run_dir(folder)
            if run is not None:
                folder = run / "inference"
        return folder if (folder / "tokenizer.json").is_file() else None

    def read(self) -> tuple[Arrays, Layout, Architecture | None]:
        """The arrays by their names, unevaluated, how they are stored, and the model of a checkpoint."""
        if self.checkpoint:
            checkpoint = load_named(self.checkpoint, self.path)
            architecture = saved_architecture(checkpoint)
            return checkpoint.weights, layout_of(architecture.node), architecture
        split = list(chain.from_iterable(family.split for family in FAMILIES))
        if self.path.suffix == ".safetensors":
            return split_arrays(read_safetensors(self.path), split), Layout(), None
        arrays = split_arrays(read_arrays(self.path), split)
        return arrays, published_layout(self.path), None

    def load_into(self, model: Model, node: Config, min_match: float) -> InitialWeights:
        """Gives a model these weights, as far as they fit.

        Args:
            node: the `model` node of the model.
            min_match: the share of arrays that must fit.

        Raises:
            InputNotFoundError, DataError, CheckpointUnavailableError: the weights cannot be read, or none fits.
            NotAllowedError: fewer than `min_match` fit.
        """
        arrays, layout, architecture = self.read()
        names = [family.table() for family in FAMILIES]
        rules = Rules(names, IGNORED_KEYS, OF_A_TASK, layout, layout_of(node), merged_weight)
        result = transfer(arrays, named_parameters(model), rules)
        title = f"{KEY}={self.name}"
        advice = _advise_settings(architecture, node)
        result.report.require(min_match, title, advice)
        if advice:
            logger.warning("%s: the run of these weights had other settings; %s", title, advice)
        evaluate_finite(result.weights, title)
        model.load_weights(list(result.weights.items()))
        return InitialWeights(self.name, digest(arrays), result.report)


def _advise_settings(old: Architecture | None, node: Config) -> str:
    """Names the settings of a run's model that differ from those of `node`; "" without any in the same family."""
    if old is None:
        return ""
    before = split_node(old.node)[1]
    own = split_node(node)[1]
    if before["_target_"] != own["_target_"]:
        return ""
    parameters = inspect.signature(import_target(str(own["_target_"]))).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    current = {**defaults, **own}
    overrides = [
        override_text(f"model.{key}", value)
        for key, value in before.items()
        if key != "dropout" and current.get(key) != value
    ]
    if not overrides:
        return ""
    return f"for the model of these weights: {join(overrides)}"


def find_weights(name: str, tracking_uri: str | None = None) -> WeightSource:
    """The weights that `init_from` names: of a run folder the best checkpoint.

    Args:
        tracking_uri: the store of registered models; None is the default one.

    Raises:
        InputNotFoundError, ServiceUnavailableError, ConfigError: there is nothing of that name, or it is an ensemble.
        DataError: a registered model was not logged by mlxlab.
        NotAllowedError: there are links in the run folder.
    """
    if is_mlflow_uri(name):
        path = download_model(name, tracking_uri, project_root(), project_root() / ".cache")
        return WeightSource(name, path.parent, str(path))
    path = Path(os.path.expanduser(name))
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise InputNotFoundError(f"{KEY}={name}: no such file")
        return WeightSource(name, path.resolve())
    run = find_run_dir(path)
    if run is not None:
        refuse_links(run)
        if (run / ENSEMBLE_FILE).is_file():
            raise ConfigError(
                f"{KEY}={name}: expected one model, got an ensemble; name one of its members"
            )
        if path.absolute() == run:
            return WeightSource(name, run, "best")
        if path.is_dir() or KEYWORD.fullmatch(path.name):
            return WeightSource(name, run, str(path.absolute()))
    if (path / "state.json").is_file():  # a checkpoint outside of any run folder
        return WeightSource(name, path, str(path))
    return WeightSource(name, resolve(name, KEY, needs_config=False))
