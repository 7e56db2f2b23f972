"""The folder of the outputs: the checkout inside of it, else the current folder."""

from mlxlab.config.paths import project_root
from support.processes import ROOT, run, tiny_overrides


def test_outputs_of_a_checkout_stay_in_it_from_any_of_its_folders(monkeypatch):
    for folder in (ROOT, ROOT / "tests"):
        monkeypatch.chdir(folder)
        assert project_root() == ROOT


def test_outputs_go_below_the_current_folder_outside_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path
    finished = run(*tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2"))
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "outputs").glob("*/*/summary.md"))) == 1
