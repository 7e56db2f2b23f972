"""Odd values of Hydra's own keys and flags: one line and an exit code, never a traceback."""

import pytest

from support.configs import line  # noqa: F401


@pytest.mark.parametrize(
    "args",
    [
        ["hydra.run.dir=${oc.env:NOPE}"],
        ["hydra.run.dir=${nope}"],
        ["hydra.run.dir='${'"],
        ["hydra.launcher=null"],
        ["hydra.sweeper=null"],
        ["hydra.job=null"],
        ["hydra.run=null"],
        ["-m", "hydra.sweep.dir=${nope}"],
        ["-m", "hydra.launcher=null"],
        ["-m", "seed=0,1", "hydra.sweeper=search"],
        ["--hydra-help", "model=brt"],
        ["--info", "nonsense"],
        ["-sc", "nonsense"],
        ["-sc", "query=bash"],
        ["tags={true: 1}"],
        ["tags={1.5: 1}"],
    ],
    ids=" ".join,
)
def test_an_odd_value_is_refused_without_a_traceback(line, args):
    assert line(*args) in (0, 2, 77), line.err
    assert "Traceback" not in line.err
