"""The commands in the `sh` blocks of the documentation, as scripts of bash that run them in order, with fewer steps."""

import re
import shlex
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from support.processes import ROOT

STEPS = "trainer.max_steps=4 trainer.eval_every=2 trainer.eval_batches=2 trainer.schedule.warmup=1"

NOT_RUN = {  # pattern of a command -> why, or which tests do the same
    r"pip install (?!-e \./)|^git pull|^python3 -m venv": "tests/extras.py, tests/wheel_versions.py",
    r"^python -m benchmarks[ .]": "takes minutes; tests/benchmarks runs the suites on small shapes",
    r"^python -m pytest (-m|tests)": "is a test",
    r"hydra/launcher=submitit_slurm": "needs a cluster",
    r" to=wandb": "needs an account",
    r"experiment=(election_tweets|book_passages|newsgroups_few)": "needs published texts",
    r"^mlflow models serve|^curl ": "tests/inference/test_served_model.py",
    r"^export AWS_|cloud=s3|resume=s3://": "tests/end_to_end/test_cloud.py, with emulators of the stores",
    r"model\.pretrained=Qwen/": "tests/data/sources, with a server in place of the hub",
}
NEEDED_MODULES = {  # pattern of a command -> module without which it is left out
    r"hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    r"hydra/launcher=submitit_local": "hydra_plugins.hydra_submitit_launcher",
    r"hydra/launcher=ray": "hydra_plugins.hydra_ray_launcher",
    r"tracking=\S*wandb": "wandb",
    r"tracking=\S*trackio": "trackio",
    r"model=mlx_lm": "mlx_lm",
    r"^mlxlab export onnx": "onnx",
}

_TRAIN = f"scripts/train.py {STEPS} tracking=none"
_TEXTS = (
    "python - <<'END'\nimport json, pathlib\n"
    "texts = [page.read_text() for page in pathlib.Path('docs').rglob('*.md')]\n"
)
MAKE = {  # a file or run "of yours" -> the commands that make it, maybe from those above it
    "code.txt": "cat src/mlxlab/*/*.py > code.txt",
    "my.txt": "cat docs/how_to/*.md > my.txt",
    "tinyshakespeare.txt": "cat docs/how_to/*.md | tr -cd '[:alpha:][:space:]' > tinyshakespeare.txt",
    "books.jsonl": f"{_TEXTS}lines = [json.dumps(dict(text=text)) for text in texts]\n"
    "pathlib.Path('books.jsonl').write_text('\\n'.join(lines))\nEND",
    "corpus": f"mkdir corpus\n{_TEXTS}import pandas\n"
    "pandas.DataFrame(dict(body=texts)).to_parquet('corpus/a.parquet')\nEND",
    "rows.csv": "cp src/mlxlab/data/titanic/titanic.csv rows.csv",
    "conversations.jsonl": "python examples/unit_conversions.py 100 > conversations.jsonl",
    "model.gguf": f"{_TRAIN} model=transformer data=instruct data.source=conversations.jsonl "
    "hydra.run.dir=outputs/gguf\n"
    "mlxlab export gguf run=outputs/gguf out=model.gguf",
    "outputs/first": f"{_TRAIN} hydra.run.dir=outputs/first",
    "outputs/mine": f"{_TRAIN} hydra.run.dir=outputs/mine",
    "outputs/mine, a decoder": f"{_TRAIN} model=transformer data=streaming data.source=code.txt "
    "hydra.run.dir=outputs/mine",
    "outputs/table": f"{_TRAIN} data=table data.source=src/mlxlab/data/titanic/titanic.csv "
    "data.target=Survived 'data.columns=[Sex, Age, Fare]' hydra.run.dir=outputs/table",
    "outputs/tuned": f"{_TRAIN} model/adapter=lora hydra.run.dir=outputs/tuned",
    "outputs/alone": "scripts/train.py experiment=titanic trainer.epochs=1 hydra.run.dir=outputs/alone",
    "outputs/distilled": "scripts/train.py experiment=titanic trainer.epochs=1 seed=1 hydra.run.dir=outputs/distilled",
    "sweep": f"scripts/train.py -m experiment=titanic {STEPS} seed=0,1 "
    "hydra.sweep.dir=multirun/2026-11-23/09-00-00-4f2a",
    "home/old_projects": "export HOME=$PWD/home\nmkdir -p home/old_projects\n"
    f"MLFLOW_TRACKING_URI=sqlite:///$HOME/old_projects/mlflow.db scripts/train.py {STEPS}",
    "reviews.tsv": "for n in 1 2 3 4 5 6 7 8 9; do\n"
    "printf 'good\\tfine film %s\\nbad\\tdull film %s\\n' $n $n\ndone > reviews.tsv",
}


@dataclass(frozen=True)
class Page:
    """What running the commands of a page needs.

    Args:
        assumed: names of MAKE that its text takes for granted.
        replaced: patterns in its commands, and what is written instead. A command in which something is replaced is
            otherwise run as it is, all others train 4 steps.
        before: pattern of a command -> commands that are run before it.
        short: whether commands that train do so for 4 steps only.
    """

    assumed: tuple[str, ...] = ()
    replaced: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    short: bool = True


TRAINS = r"^(scripts/train\.py|mlxlab (train|launch)) (?!.*(--help|--dry-run| resume=auto$| &$))"
INSTALLED = {
    r"pip install -e (\./\w+)": r"pip install -q --no-deps --no-build-isolation --target=installed \1"
}
EPOCH = {r"^((?:scripts/train\.py|mlxlab (?:launch|crossvalidate)) .*)": r"\1 trainer.epochs=1"}
PAGES = {
    "docs/explanation/measurements": Page(
        assumed=("tinyshakespeare.txt", "books.jsonl"),
        replaced={
            "folds=5 seeds=3": "folds=2 seeds=1 trainer.epochs=1",
            "(mlxlab crossvalidate experiment=titanic_distilled .*)": r"\1 folds=2 seeds=1 trainer.epochs=1",
        },
    ),
    "docs/how_to/models/adapters": Page(assumed=("conversations.jsonl", "model.gguf")),
    "docs/how_to/models/growth": Page(
        replaced={r"(.*)or_steps: 50(.*)": rf"\1or_steps: 2\2 {STEPS}"}
    ),
    "docs/how_to/models/other_weights": Page(replaced={r"max_steps=(\d)00": r"max_steps=\1"}),
    "docs/how_to/compare": Page(
        replaced={
            "folds=5 seeds=3": "folds=2 seeds=1 trainer.epochs=2",
            r"(scripts/train.*)": r"\1 trainer.epochs=2",
        },
    ),
    "docs/how_to/distributed": Page(assumed=("code.txt",)),
    "docs/how_to/extending": Page(
        replaced=INSTALLED,
        before={
            "mlxlab train data=reviews": MAKE["reviews.tsv"],
            "^export PYTHONPATH=. .*=mine": "\n".join(
                f"{_TRAIN} hydra.run.dir=outputs/{name}" for name in "ab"
            ),
        },
    ),
    "docs/how_to/interop": Page(
        assumed=("code.txt", "outputs/mine, a decoder", "outputs/tuned", "outputs/table")
    ),
    "docs/how_to/models/pretrained": Page(assumed=("code.txt", "tinyshakespeare.txt")),
    "docs/how_to/reports": Page(assumed=("outputs/mine", "sweep")),
    "docs/how_to/sweeps": Page(
        assumed=("sweep",),
        replaced={
            "seed=0,1,2,3,4|seed=0,1,2(,3)?": f"seed=0,1 {STEPS}",
            "experiment=titanic hydra.launcher": f"experiment=titanic seed=0 {STEPS} hydra.launcher",
            "optuna_titanic hydra.sweeper.trials=20": "optuna_titanic hydra.sweeper.trials=2",
            "trials=20": f"trials=2 {STEPS}",
            "trainer.epochs=27": "trainer.epochs=3",
            "trials=27": "trials=3",
        },
    ),
    "docs/how_to/migrating_stores": Page(
        assumed=("home/old_projects",), replaced={"/data/": "home/"}
    ),
    "docs/how_to/models_in_mlflow": Page(
        before={
            "mlxlab registry register": f"scripts/train.py experiment=titanic name=mine {STEPS}"
        },
    ),
    "docs/how_to/tracking": Page(
        assumed=("outputs/alone", "outputs/distilled", "sweep"),
    ),
    "docs/how_to/training/conversations": Page(assumed=("conversations.jsonl", "model.gguf")),
    "docs/how_to/training/language_models": Page(
        assumed=("corpus", "books.jsonl", "conversations.jsonl", "model.gguf")
    ),
    "docs/how_to/training/learning_rate": Page(
        replaced={
            "sweep=learning_rate": "sweep=learning_rate trainer.learning_rate=1e-3 seed=0,1 trainer.epochs=1",
        },
    ),
    "docs/how_to/training/speed": Page(
        replaced={r"max_steps=(\d)00": r"max_steps=\1 trainer.eval_batches=2"}
    ),
    "docs/how_to/upgrading": Page(assumed=("outputs/mine",)),
    "docs/reference/zoo": Page(assumed=("my.txt",)),
    "docs/tutorials/adapt_lora": Page(
        replaced={
            r"pip install.*": ":",
            "mlxlab kernels build": ":",
            "max_steps=40 trainer.eval_every=20": "max_steps=1 trainer.eval_every=1",
            "batches=5": "batches=1",
            r"(mlxlab evaluate .*)": r"\1 max_batches=1",
        },
    ),
    "docs/tutorials/distil": Page(replaced={"folds=3 seeds=2": "folds=2 seeds=1"} | EPOCH),
    "docs/tutorials/pretrain": Page(
        replaced={
            "max_steps=150": "max_steps=4 model.num_layers=1",
            "max_steps=160": "max_steps=6",
            "every=50": "every=2",
        },
    ),
    "docs/tutorials/resume_verify": Page(short=False),
}


def documented_pages() -> list[str]:
    """Paths without `.md` of the pages that have commands, relative to the checkout."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page.relative_to(ROOT).with_suffix("").as_posix() for page in pages if commands(page)]


def commands(page: Path) -> list[tuple[str, str]]:
    """(command in one line, comment behind it) of the `sh` blocks of a page; in tutorials, Python blocks too."""
    kinds = "sh|python" if page.parent.name == "tutorials" else "sh"
    blocks = re.findall(
        rf"^ *```({kinds})\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.DOTALL
    )
    found: list[tuple[str, str]] = []
    for kind, block in blocks:
        if kind == "python":
            found.append((f"python - <<'END'\n{block}END\n", ""))
            continue
        for line in re.sub(r" *\\\n *", " ", block).splitlines():
            command, _, comment = line.strip().partition(" #")
            if command and not command.startswith("#"):
                found.append((command.strip(), comment))
    return found


def files(page: Path) -> dict[str, str]:
    """Contents by path of the blocks of a page that begin with a comment of their path, outside `src/`."""
    blocks = re.findall(
        r"^```(?:python|yaml)\n# (?!src/)([\w/.]+)\n(.*?)^```", page.read_text(), re.M | re.DOTALL
    )
    return dict(blocks)


def why_not_run(command: str) -> str | None:
    for pattern, reason in NOT_RUN.items():
        if re.search(pattern, command):
            return reason
    missing = [
        name
        for pattern, name in NEEDED_MODULES.items()
        if re.search(pattern, command) and not _exists(name)
    ]
    return f"needs {missing[0]}" if missing else None


def shell_script(name: str) -> str:
    """Ends with the first command that fails. A comment `exit code N` says which codes a command may end with."""
    page = PAGES.get(name, Page(replaced=EPOCH if "tutorials" in name else {}))
    script = ["set -e", *(MAKE[assumed] for assumed in page.assumed)]
    for shown, comment in commands(ROOT / f"{name}.md"):
        if why_not_run(shown):
            continue
        script += [before for pattern, before in page.before.items() if re.search(pattern, shown)]
        command = shown
        for pattern, replacement in page.replaced.items():
            command = re.sub(pattern, replacement, command)
        if page.short and command == shown and re.search(TRAINS, command):
            given = "|".join(re.escape(setting.partition("=")[0]) for setting in STEPS.split())
            command = f"{re.sub(rf' (?:{given})=[^ ]+', '', command)} {STEPS}"
        command, _, more = (command, "", "") if "<<" in command else command.partition(" #")
        codes = "|".join(re.findall(r"\d+", (comment + more).partition("exit code ")[2]))
        script.append(f"echo '$' {shlex.quote(command)} >&2")
        script.append(
            f"code=0; {command} || code=$?; case $code in {codes}) ;; *) exit 1;; esac"
            if codes
            else command
        )
    return "\n".join(script)


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
