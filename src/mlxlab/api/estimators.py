"""Estimators of scikit-learn whose models are runs: for its pipelines, searches and cross-validations."""

import io
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mlxlab.api.config import compose, write_frame
from mlxlab.api.run import Run, load, train
from mlxlab.errors import RunInterrupted

if TYPE_CHECKING:
    from mlxlab.inference.loaded_model import LoadedModel

TARGET = "target"
MIN_ROWS = 5
MAX_SEED = 2**31 - 1
SETTINGS = (
    "data=table",
    f"data.target={TARGET}",
    "data.baselines=false",
    "data.valid_fraction=0.1",
    # A class of one row, which cannot be in both splits, is left out; `predict_proba` has 0 for it.
    "data.on_error=skip",
    "data.max_left_out=0.5",
    "tracking=none",
    "~callbacks.report",
    "checkpointing.keep=1",
)
NOT_PICKLED = ("_model", "_remove", "run_")


class _Estimator(BaseEstimator):
    """Trains a run on rows of numbers, or on the typed columns of a DataFrame.

    Args:
        model: as in `mlxlab train`.
        epochs: null is the default of the model.
        learning_rate: null is the default of the model.
        overrides: further ones, as on the command line.
        folder: of the run; without one it lies in a temporary folder as long as the estimator lives.
        random_state: of the weights and the order of the rows.
        verbose: shows the messages of the training.
    """

    task: str

    def __init__(
        self,
        model: str = "tabular",
        epochs: int | None = None,
        learning_rate: float | None = None,
        overrides: Sequence[str] = (),
        folder: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.overrides = overrides
        self.folder = folder
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    def _fit(self, rows: pd.DataFrame, targets: np.ndarray) -> None:
        folder = self.folder
        if folder is None:
            folder = self._new_folder()
        seed = 0
        if self.random_state is not None:
            seed = int(check_random_state(self.random_state).randint(MAX_SEED))
        trainer = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        given = {name: value for name, value in trainer.items() if value is not None}
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "rows.parquet"
            write_frame(rows.assign(**{TARGET: targets}), file)
            config = compose(
                *SETTINGS,
                f"data.task={self.task}",
                *self.overrides,
                model=self.model,
                trainer=given,
                seed=seed,
                data={"source": str(file)},
                hydra={"run": {"dir": folder}},
            )
            try:
                self.run_ = train(config, quiet=not self.verbose)
            except RunInterrupted:
                raise KeyboardInterrupt from None  # A search of scikit-learn goes on after an error.
        self._model = load(self.run_)

    def _new_folder(self) -> str:
        folder = tempfile.mkdtemp(prefix="mlxlab-")
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _rows(self, features: Any, *, reset: bool) -> pd.DataFrame:
        """The rows as a frame; raises ValueError for what no estimator of scikit-learn takes."""
        if isinstance(features, pd.DataFrame):
            numbers = features.select_dtypes("number")
            if numbers.shape[1] < features.shape[1]:
                validate_data(self, features, reset=reset, skip_check_array=True)
                return features.rename(columns=str)
        checked = validate_data(
            self, features, reset=reset, dtype="numeric", ensure_all_finite="allow-nan"
        )
        return pd.DataFrame(checked).add_prefix("x")

    def _loaded(self) -> "LoadedModel":
        check_is_fitted(self, "run_")
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        for name in NOT_PICKLED:
            state.pop(name, None)
        if hasattr(self, "run_"):
            state["_files"] = _packed(self.run_.folder)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            folder = self._new_folder()
            zipfile.ZipFile(io.BytesIO(files)).extractall(folder)
            self.run_ = Run(folder)
            self._model = load(self.run_)


class Classifier(ClassifierMixin, _Estimator):
    """A classifier; `classes_` are the labels, `run_` is the run that `fit` has trained."""

    task = "single"

    def fit(self, X: Any, y: Any) -> "Classifier":
        rows = self._rows(X, reset=True)
        checked = _targets(y, rows)
        check_classification_targets(checked)
        self.classes_, codes = np.unique(checked, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected rows of two classes, got 1 class: {self.classes_[0]!r}")
        self._fit(rows, _class_names(codes))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, C): the probabilities of `classes_`."""
        predicted = self._loaded().predict_proba(self._rows(X, reset=False))
        names = _class_names(np.arange(len(self.classes_)))
        probabilities = predicted.reindex(columns=names, fill_value=0.0).to_numpy(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """(N,): the most probable of `classes_`."""
        most_probable = self.predict_proba(X).argmax(axis=1)
        return self.classes_[most_probable]


class Regressor(RegressorMixin, _Estimator):
    """A regression; `run_` is the run that `fit` has trained."""

    task = "regression"

    def fit(self, X: Any, y: Any) -> "Regressor":
        rows = self._rows(X, reset=True)
        self._fit(rows, _targets(y, rows).astype(np.float64))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(N,) numbers."""
        predicted = self._loaded().predict(self._rows(X, reset=False))
        return predicted["value"].to_numpy(np.float64)


def _class_names(codes: np.ndarray) -> np.ndarray:
    """Texts for classes of any type."""
    return np.char.add("class ", codes.astype(str))


def _targets(targets: Any, rows: pd.DataFrame) -> np.ndarray:
    """(N,) targets; raises ValueError if they are not one for each row."""
    if targets is None:
        raise ValueError("requires y to be passed, but the target y is None")
    checked = column_or_1d(targets, warn=True)
    check_consistent_length(rows, checked)
    if checked.dtype.kind == "f" and not np.isfinite(checked).all():
        raise ValueError("y contains NaN or infinity")
    if len(checked) < MIN_ROWS:
        raise ValueError(f"expected at least {MIN_ROWS} rows, got n_samples={len(checked)} sample")
    return checked


def _packed(folder: Path) -> bytes:
    """The files of a run folder as one archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()
