"""The figure of a trial: the pairs with their colours, the interval, and what a stranger's record can hold."""

import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from mlxlab.analysis.trial.figure import draw_pairs
from mlxlab.analysis.trial.page import trial_blocks
from mlxlab.analysis.trial.record import MAX_PAIRS, read_record, write_record
from mlxlab.cli import trial
from mlxlab.errors import DataError
from support.processes import environment
from support.trial_records import PAIRS, look, make_record

GREEN, RED = (to_rgba(color) for color in ("C2", "C3"))


@pytest.mark.parametrize(
    ("metric", "colors"), [("valid/loss", [RED, GREEN]), ("valid/accuracy", [GREEN, RED])]
)
def test_a_line_goes_from_the_baseline_to_the_change_and_is_green_where_that_is_better(
    metric, colors
):
    values, gains = draw_pairs(make_record(metric)).axes
    lines, baselines, changes = values.collections
    ends = [[(old, y), (new, y)] for y, (old, new) in enumerate(PAIRS)]
    np.testing.assert_array_equal(lines.get_segments(), ends)
    np.testing.assert_array_equal(lines.get_colors(), colors)
    np.testing.assert_array_equal(baselines.get_offsets(), [start for start, _ in ends])
    np.testing.assert_array_equal(changes.get_offsets(), [end for _, end in ends])
    np.testing.assert_array_equal(baselines.get_facecolors(), [to_rgba("white")])
    np.testing.assert_array_equal(changes.get_facecolors(), colors)
    assert [values.yaxis.get_major_formatter()(y) for y in (0, 1)] == ["seed 0", "seed 1"]
    assert values.yaxis_inverted()
    np.testing.assert_array_equal(gains.lines[0].get_xydata(), [(-0.25, 0), (0.25, 0)])


def test_the_interval_of_the_last_look_is_drawn_around_its_mean():
    _, gains = draw_pairs(make_record(looks=[look(0.5, 0.25, 1.0), look(0.125, -0.25, 0.75)])).axes
    [bar] = gains.containers
    np.testing.assert_array_equal(bar.lines[0].get_xydata(), [(0.125, 1)])
    np.testing.assert_array_equal(bar.lines[2][0].get_segments(), [[(-0.25, 1), (0.75, 1)]])


@pytest.mark.parametrize(
    "estimate",
    [
        (0.1, 0.2, 0.05),
        (0.3, 0.1, 0.2),
        (0.0, None, 0.1),
        (None, -0.1, 0.1),
        (0.0, -np.inf, np.inf),
    ],
)
def test_what_is_no_interval_is_not_drawn(estimate):
    _, gains = draw_pairs(make_record(looks=[look(*estimate)])).axes
    assert gains.containers == []


@pytest.mark.parametrize("metric", [r"valid/$\frac$", "x" * 100_000, "a\n" * 1000])
def test_the_name_of_a_metric_is_neither_a_formula_nor_long(tmp_path, metric):
    record = make_record(metric, looks=[look(0.0, -1e100, 1e100)])
    assert len(draw_pairs(record).axes[0].get_xlabel()) < 100
    write_record(tmp_path, record)
    assert trial_blocks(read_record(tmp_path), tmp_path).sections[0].blocks[0].kind == "image"


@pytest.mark.parametrize(
    "change",
    [
        {"looks": [look(1e308, -1e308, 1e308)]},
        {"looks": [{"pairs": 3}]},
        {"gains": [1e308, -1e308]},
        make_record(pairs=[(1e308, -1e308)]),
        make_record(pairs=PAIRS * 51),
    ],
)
def test_a_record_that_no_trial_writes_is_refused(tmp_path, change):
    write_record(tmp_path, make_record() | change)
    with pytest.raises(DataError, match=r"trial\.json: (looks|gains|runs)"):
        read_record(tmp_path)


def test_as_many_pairs_as_the_command_allows_can_be_read():
    hints = get_type_hints(trial.trial, include_extras=True)
    assert [bound.le for bound in hints["max_seeds"].__metadata__ if hasattr(bound, "le")] == [
        MAX_PAIRS
    ]


def test_a_page_with_its_figure_is_made_without_mlx(tmp_path):
    write_record(tmp_path, make_record())
    script = "import sys; from mlxlab.analysis.any_report import write_any_report; from pathlib import Path; "
    script += (
        "write_any_report(Path(sys.argv[1])); print({'matplotlib', 'mlx.core'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "{'matplotlib'}", done.stderr
