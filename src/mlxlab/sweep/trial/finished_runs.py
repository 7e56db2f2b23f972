"""Finished runs as a trial uses them: their values, and which of them need not be trained again."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.analysis.comparison import Evaluation
from mlxlab.analysis.comparison_runs import metric_of, read_finished
from mlxlab.analysis.comparison_subject import WITHOUT_EFFECT
from mlxlab.config.check import read_stored_config
from mlxlab.errors import UserError
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run
from mlxlab.sweep.trial.record import FILE, read_record


def config_digest(config: Mapping[str, Any]) -> str:
    """Equal for resolved configs that differ only in keys that do not change the results."""
    values = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def code_of(folder: Path) -> dict[str, str | None]:
    """Commit and digest of the uncommitted changes with which a run was trained."""
    code = read_lock(folder)["code"]
    return {"commit": code["commit"], "digest": code["digest"]}


def data_of(folder: Path) -> tuple[str, str]:
    """The fingerprints of data and tokenizer of a run."""
    data = read_run(folder).data
    return data.fingerprint, data.tokenizer_fingerprint


class FinishedRuns:
    """Runs of the same code that were trained before: the baseline itself, and the baselines of other trials.

    Args:
        baseline: its run folder.
        trials: the folder of all trials.
        code: that of now, as in `code_of`.
    """

    def __init__(self, baseline: Path, trials: Path, code: dict[str, str | None]) -> None:
        self.code = code
        self._folders = dict[str, list[Path]]()
        if code["commit"] is None:
            return
        with suppress(UserError):
            digest = config_digest(read_stored_config(baseline / "inference" / "config.yaml"))
            self._folders[digest] = [baseline]
        for file in trials.glob(f"*/{FILE}"):
            with suppress(UserError):
                for run in read_record(file.parent).runs:
                    if run.arm == "baseline" and not run.reused and run.value is not None:
                        self._folders.setdefault(run.digest, []).append(file.parent / run.folder)

    def find(self, digest: str, metric: str, evaluation: Evaluation) -> tuple[Path, float] | None:
        """The folder and the value of a run with a config, if there is one."""
        for folder in self._folders.get(digest, []):
            with suppress(UserError):
                value = metric_of(read_finished(folder), metric, evaluation)
                if code_of(folder) == self.code:
                    return folder, value
        return None
