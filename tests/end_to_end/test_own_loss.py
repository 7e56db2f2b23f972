"""A loss of the user's own: the plain function of docs/how_to/extending.md."""

from support.documented_commands import files
from support.processes import ROOT, succeed, tiny_overrides

NAMES = ("hinge.py", "my_conf/trainer/loss/hinge.yaml")


def test_the_documented_function_is_trained_with_as_a_loss(tmp_path):
    blocks = files(ROOT / "docs" / "how_to" / "extending.md")
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(blocks[name])
    args = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2")
    args += [f"--config-dir={tmp_path}/my_conf", "trainer/loss=hinge"]
    args += [f"hydra.run.dir={tmp_path}/run"]
    succeed(*args, PYTHONPATH=str(tmp_path), MLXLAB_ALLOWED_TARGETS="hinge.Hinge")
    assert "hinge.Hinge" in (tmp_path / "run" / "inference" / "config.yaml").read_text()
