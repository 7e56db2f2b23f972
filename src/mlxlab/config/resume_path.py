"""Which run a `resume` path belongs to: light, because it is decided before the run folder is."""

from pathlib import Path

WORDS = ("auto", "last", "best", "emergency")


def run_folder(resume: str | None) -> Path | None:
    """The run folder that a path of `resume` lies in; None for a word, or a checkpoint that lies in no run.

    A resumed run goes on in its own folder, and so in its own run of the store.
    """
    if resume is None or resume in WORDS:
        return None
    path = Path(resume).expanduser().absolute()
    if path.name in WORDS:
        path = path.parent
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "checkpoints").is_dir() or (folder / "rounds").is_dir():
            return folder
    return None
