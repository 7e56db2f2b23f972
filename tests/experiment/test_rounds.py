"""Laws of rounds: who is whose teacher, where a student starts, in which order they are kept, what is measured."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from omegaconf import OmegaConf

from mlxlab.cli.train import main
from mlxlab.distillation.options import NO_DISTILLATION
from mlxlab.experiment.rounds import DistillationRounds, is_multi_round
from mlxlab.inference.ensemble import find_run_dir
from mlxlab.inference.restore import restore_model
from support.models import weights_of

WORDS = [
    "trainer=distill",
    "tracking=none",
    "data.source=synthetic",
    "data.templates=[brief]",
    "data.prefetch=0",
    "data.batch_size=16",
    "model.num_layers=1",
    "model.hidden_size=16",
    "model.num_heads=2",
    "model.intermediate_size=16",
    "model.dropout=0",
    "trainer.max_steps=2",
    "callbacks.progress_bar.bar=never",
]


def trained(folder, *words):
    assert main([*WORDS, *words, f"hydra.run.dir={folder}"]) == 0
    return folder


def last_weights(folder):
    return weights_of(restore_model(folder, folder / "checkpoints" / "last").model)


def apart(a, b) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def test_a_student_starts_afresh_or_where_the_one_before_it_ended(tmp_path):
    still = ["trainer.distillation.rounds=2", "trainer.learning_rate=1e-9"]
    fresh = trained(tmp_path / "fresh", *still, "trainer.distillation.previous_students=independent")
    first, second = (last_weights(fresh / "rounds" / name) for name in "12")
    assert apart(first, second) > 1e-2
    again = trained(tmp_path / "previous", *still, "trainer.distillation.round_init=previous")
    first, second = (last_weights(again / "rounds" / name) for name in "12")
    assert apart(first, second) < 1e-6


def test_the_role_says_what_earlier_students_are_and_every_round_is_a_run_that_says_so(tmp_path):
    ends = {}
    for role in ("teacher", "residual"):
        folder = trained(
            tmp_path / role, "trainer.distillation.rounds=2", f"trainer.distillation.previous_students={role}"
        )
        ends[role] = last_weights(folder / "rounds" / "2")
        config = OmegaConf.load(folder / "rounds" / "2" / "inference" / "config.yaml")
        assert config.trainer.distillation.members == [f"{folder}/rounds/1/checkpoints/last"]
        assert (folder / "rounds" / "2" / "STATUS.DONE").exists()
        assert json.loads((folder / "manifest.json").read_text())["rounds_done"] == 2
        [line] = [line for line in (folder / "rounds.md").read_text().splitlines() if line.startswith("| 2 |")]
        assert line.count("0.") == 4, "student, ensemble and two members, and no teacher"
    assert apart(ends["teacher"], ends["residual"]) > 0


def test_students_of_elsewhere_are_an_ensemble_at_once_and_an_ensemble_can_teach(tmp_path):
    one, two = (trained(tmp_path / name, f"trainer.learning_rate={rate}") for name, rate in (("a", 1e-3), ("b", 1e-2)))
    folder = trained(tmp_path / "both", "trainer.distillation.rounds=0", f"trainer.distillation.members=[{one},{two}]")
    measured = json.loads((folder / "rounds.json").read_text())["done"][0]
    assert measured.keys() == {"member 1", "member 2", "ensemble"}
    assert len(restore_model(folder).model.members) == 2
    student = trained(tmp_path / "student", f"trainer.teachers=[{folder}]")
    manifest = json.loads((student / "manifest.json").read_text())
    assert len(manifest["teachers"][str(folder)]) == 64


def config_with(**changes):
    target = {"_target_": "mlxlab.distillation.options.DistillationOptions"}
    options = asdict(NO_DISTILLATION) | target | changes
    return OmegaConf.create({"resume": None, "trainer": {"distillation": options}, "objective": "valid/loss"})


def test_members_are_in_the_order_of_the_rounds_by_number(tmp_path):
    cfg = config_with(rounds=12, members=["x"])
    rounds = DistillationRounds(cfg, tmp_path, lambda *_: 0.0, lambda **_: None)
    names = [name.split("/")[-3] for name in rounds._members(11)[1:]]
    assert names == [str(number) for number in range(1, 12)]


@pytest.mark.parametrize(
    ("changes", "expected"), [({"rounds": 2}, True), ({"rounds": 0, "members": ["x"]}, True), ({}, False)]
)
def test_a_run_of_several_rounds_or_with_members_consists_of_other_runs(changes, expected):
    assert is_multi_round(config_with(**changes)) == expected
    assert not is_multi_round(OmegaConf.create({"trainer": {}}))


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/last"])
def test_a_run_is_found_from_any_path_inside_it(tmp_path, place):
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "config.yaml").write_text("")
    assert find_run_dir(tmp_path / place) == tmp_path
    assert find_run_dir(tmp_path.parent / "nowhere") is None
