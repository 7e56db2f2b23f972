"""A trained run in Python: its record, its history, evaluations, its page, and its model."""

import html
import io
import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.api.config import Config, composed, redacted, store_frame, with_frame
from mlxlab.errors import ConfigError
from mlxlab.inference.predict import is_frame
from mlxlab.record.run_file import read_run
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.messages import configure_logging
from mlxlab.terminal.program import display_path
from mlxlab.views.pages import closing_lines, run_page
from mlxlab.views.run_view import RunView

if TYPE_CHECKING:
    import pandas as pd

    from mlxlab.inference.loaded_model import LoadedModel
    from mlxlab.record.run_record import RunRecord
    from mlxlab.training.callback import Callback

PAGE_WIDTH = 960  # pixels, in a notebook
PAGE_HEIGHT = 600


@dataclass(frozen=True)
class Page:
    """A page of a run, which a notebook shows where it is the value of a cell."""

    text: str

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.text)}" width="{PAGE_WIDTH}" height="{PAGE_HEIGHT}"></iframe>'


class Run(os.PathLike[str]):
    """A run in its folder.

    Raises:
        InputNotFoundError: the folder holds no run.
        DataError: its record is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().absolute()
        read_run(self.folder)

    @property
    def record(self) -> "RunRecord":
        """Every fact of the run, as `run.json` has it now."""
        return read_run(self.folder)

    @property
    def best(self) -> float | None:
        """The best value of the objective."""
        return self.record.training.best

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics of the evaluation with the best value."""
        return self.record.evaluation.keyed_metrics("valid", "test")

    @property
    def history(self) -> "pd.DataFrame":
        """The metrics by step, those of training and of each evaluation."""
        import pandas as pd

        curve = self.record.training.curve
        steps = pd.Index([step for step, _ in curve], name="step")
        return pd.DataFrame([metrics for _, metrics in curve], index=steps)

    def evaluate(
        self, data: "pd.DataFrame | str | os.PathLike[str] | None" = None
    ) -> "pd.DataFrame":
        """The metrics on labelled rows or a text, with 95 % intervals and those of the baselines.

        Args:
            data: rows, or a file as `mlxlab evaluate` takes it; None is the validation data of the run.

        Raises:
            DataError: a column is missing, or a cell is malformed.
        """
        import pandas as pd

        from mlxlab.evaluation.evaluate_run import evaluate_restored

        with redacted():
            source = store_frame(data) if is_frame(data) else data
            overrides = {} if source is None else {"source": os.fspath(source)}
            result = evaluate_restored(load(self).restored, self.folder, overrides).result
        table = pd.DataFrame({"value": result.metrics})
        if result.intervals:
            intervals = pd.DataFrame(result.intervals, index=["low", "high"]).T
            table = pd.concat([table, intervals, pd.DataFrame(result.baselines)], axis=1)
        return table.rename_axis("metric")

    def report(self) -> Page:
        """The page of the run as it is now."""
        return Page(run_page(RunView(self.record, self.folder)))

    def compare(self, *others: "Run") -> "pd.DataFrame":
        """The metrics of this run and of others, and the keys of their configs that differ; a column for each run."""
        import pandas as pd

        settings = {}
        metrics = {}
        for run in (self, *others):
            name = display_path(run.folder)
            values = dict(walk(run.record.config, lists=False))
            settings[name] = pd.Series(values, dtype=object)
            metrics[name] = pd.Series(run.metrics, dtype=object)
        keys = pd.DataFrame(settings)
        is_equal = keys.astype(str).nunique(axis=1) == 1
        return pd.concat([keys[~is_equal], pd.DataFrame(metrics)])

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return closing_lines(RunView(self.record, Path(display_path(self.folder)))).strip()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def train(
    config: Config,
    data: "pd.DataFrame | None" = None,
    *,
    callbacks: "Callback | Sequence[Callback]" = (),
    quiet: bool = False,
) -> Run:
    """Trains in this process as `mlxlab train` does, in a run folder of its own.

    An interrupt (Ctrl-C, or the stop button of a notebook) finishes the current step and saves; a second one raises
    KeyboardInterrupt in a notebook and ends any other process.

    Args:
        data: rows to learn from, in place of those of the config.
        callbacks: objects of your own, or one, besides those of the config; they are not recorded, so that a command
            which resumes the run trains without them.
        quiet: shows warnings alone.

    Raises:
        UserError: what stopped the run; RunInterrupted after an interrupt.
    """
    from mlxlab.config.hydra import compose as hydra_configs
    from mlxlab.run.entry import run_composed

    if not isinstance(config, Config):
        raise ConfigError(f"{config!r:.200}: expected a config of mlxlab.compose")
    if not isinstance(callbacks, Sequence):
        callbacks = [callbacks]
    configure_logging(logging.WARNING if quiet else logging.INFO)
    with redacted():
        overrides: Sequence[str] = config.overrides
        if data is not None:
            overrides = with_frame(overrides, data)
        checked = composed(hydra_configs.compose, overrides, config.config_dir)
        output = redirect_stdout(io.StringIO()) if quiet else nullcontext()
        with output:
            folder = run_composed(checked, callbacks)
        return Run(folder)


def load(run: str | os.PathLike[str], checkpoint: str = "best") -> "LoadedModel":
    """The model of a run or of its folder, or of the folder of an ensemble.

    Args:
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.

    Raises:
        InputNotFoundError: there is no such run.
        CheckpointUnavailableError, DataError: it is damaged.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.backend.ops.native.activation import activate_for_inference
    from mlxlab.inference.loaded_model import LoadedModel
    from mlxlab.inference.restore import restore_model

    with redacted():
        activate_for_inference()
        return LoadedModel(restore_model(Path(os.path.expanduser(run)), checkpoint))
