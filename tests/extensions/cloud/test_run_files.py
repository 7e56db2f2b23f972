"""Which files of a run folder are copied, and which copies stay."""

from mlxlab.checkpoint.manifest import write_manifest
from mlxlab.extensions.cloud.run_files import RunFiles

KEPT = """base/0.safetensors inference/config.yaml inference/tokenizers/a/data.json journal.jsonl
mistakes.csv logs/steps.csv example_losses/000000001.arrows"""
FOREIGN = """.env credentials.json inference/.hidden journal.sync.json other/notes.txt private.csv
plots/passport.png analysis/salaries.xlsx example_losses/notes.txt"""


def add_checkpoint(folder, name, best_step=0):
    path = folder / "checkpoints" / name
    path.mkdir(parents=True)
    (path / "state.json").write_text("{}")
    write_manifest(path, step=int(name.split("-")[1]), best_step=best_step)


def test_a_copy_has_what_a_resume_needs_and_nothing_else(tmp_path):
    add_checkpoint(tmp_path, "step-00000001")
    add_checkpoint(tmp_path, "step-00000002")
    add_checkpoint(tmp_path, "step-00000003", best_step=1)
    kept = KEPT.split()
    for name in kept + FOREIGN.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    held, others = RunFiles(tmp_path, tmp_path / "logs" / "steps.csv").files("step-00000003")
    first, third = "checkpoints/step-00000001", "checkpoints/step-00000003"
    checkpoints = [
        f"{each}/{name}.json" for each in (first, third) for name in ("manifest", "state")
    ]
    assert held == [*checkpoints, kept[0], *sorted(kept[1:-1])]
    assert others == [kept[-1]]


def test_an_emergency_checkpoint_stays_until_there_is_a_newer_regular_one(tmp_path):
    names = ["step-00000001", "step-00000002", "step-00000003", "step-00000002-emergency"]
    assert RunFiles(tmp_path).retained(names, 2) == ["step-00000003", "step-00000002"]
    newest = "step-00000004-emergency"
    assert RunFiles(tmp_path).retained([*names, newest], 1) == [newest, "step-00000003"]
    assert len(RunFiles(tmp_path).retained(names, None)) == 3


def test_copies_of_another_branch_are_superseded(tmp_path):
    add_checkpoint(tmp_path, "step-00000002")
    names = [f"step-0000000{step}" for step in (1, 2, 3)]
    assert RunFiles(tmp_path).superseded(names) == ["step-00000003"]
