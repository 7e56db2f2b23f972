"""The plot of a trial: the gains, the interval, and what a stranger's record can hold."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_type_hints

import pytest

from mlxlab.cli import trial
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_json
from mlxlab.sweep.trial.record import FILE, MAX_PAIRS, read_record, write_record
from mlxlab.sweep.trial.view import TrialView, trial_page
from mlxlab.views.plots import MAX_LABEL
from support.processes import environment
from support.trial_records import PAIRS, look, make_record


def test_a_trial_without_a_finished_pair_has_no_plot():
    assert TrialView(make_record(gains=[]), Path()).plots == []


def test_the_interval_of_the_last_look_is_drawn_around_its_mean():
    record = make_record(looks=[look(0.5, 0.25, 1.0), look(0.125, -0.25, 0.75)])
    [plot] = TrialView(record, Path()).plots
    pairs, row = plot.rows
    assert pairs.dots == [-0.25, 0.25]
    assert (row.mean, row.span) == (0.125, (-0.25, 0.75))


@pytest.mark.parametrize("metric", [r"valid/<\x07b>", "x" * 100_000, "a\n" * 1000])
def test_the_name_of_a_metric_is_not_long(tmp_path, metric):
    write_record(tmp_path, make_record(metric, looks=[look(0.0, -1e100, 1e100)]))
    record = read_record(tmp_path)
    [plot] = TrialView(record, Path()).plots
    assert len(plot.x_label) < MAX_LABEL + 50
    assert trial_page(record, tmp_path).count("<svg") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"looks": [asdict(look(1e308, -1e308, 1e308))]},
        {"looks": [{"pairs": 3}]},
        {"looks": [asdict(look(0.0, None, 0.1))]},
        {"gains": [1e308, -1e308]},
        asdict(make_record(pairs=[(1e308, -1e308)])),
        asdict(make_record(pairs=PAIRS * 51)),
    ],
)
def test_a_record_that_no_trial_writes_is_refused(tmp_path, change):
    write_json(tmp_path / FILE, asdict(make_record()) | change)
    with pytest.raises(DataError, match=r"trial\.json: (looks|gains|runs)"):
        read_record(tmp_path)


def test_as_many_pairs_as_the_command_allows_can_be_read():
    bounds = get_type_hints(trial.trial, include_extras=True)["max_seeds"].__metadata__
    assert MAX_PAIRS in [getattr(bound, "le", None) for bound in bounds]


def test_a_page_with_its_plots_is_made_without_mlx_and_matplotlib(tmp_path):
    write_record(tmp_path, make_record())
    script = "import sys; from mlxlab.cli.report import report; from pathlib import Path; "
    script += "report(Path(sys.argv[1])); print({*sys.modules} & {'matplotlib', 'mlx.core'})"
    command = [sys.executable, "-c", script, tmp_path]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
