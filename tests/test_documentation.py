"""The documentation names what exists: links, files and metrics."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from docs.hooks import generated_pages

import mlxlab
from mlxlab.run import entry
from support.processes import ROOT, run_here, tiny_overrides
from support.sweep_jobs import checked_config

TRAINING_PAGES = sorted((ROOT / "docs" / "how_to" / "training").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.md"))
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))


def read(page):
    return page.read_text(encoding="utf-8")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def anchors(page):
    """Those of the headings, as code hosts and the site make them, and those in HTML."""
    text = read(page)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    slugs = [re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain]
    return {*slugs, *re.findall(r'<a id="([^"]+)">', text)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_their_anchors(page):
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", read(page)):
        if "://" not in link and (link or anchor):
            target = page.parent / link if link else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def unquoted_patterns(line):
    """Words of a command, or of the comment behind it, that zsh, the shell of a Mac, expands or refuses.

    These are words with `?`, `*` or `[` outside of quotes, and words that begin with `~`. Allowed are a `*` in a word
    with a slash and without an equals sign, which is the path of files, and the command `[`.
    """
    command = re.match(r"""(?:'[^']*'|"[^"]*"|(?<!\s)#|[^'"#])*""", line)
    assert command is not None
    unquoted = re.sub(r"""'[^']*'|"[^"]*\"""", "", command[0])
    words = f"{unquoted} {line[command.end() :]}".split()
    allowed = re.compile(r"\[|[^=?\[]*/[^=?\[]*")
    return [
        word for word in words if re.search(r"[?*\[]|^~\w", word) and not allowed.fullmatch(word)
    ]


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=name_of)
def test_commands_can_be_pasted_into_zsh(page):
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", read(page), re.M | re.DOTALL):
        assert [line for line in block.splitlines() if unquoted_patterns(line)] == []


@pytest.mark.parametrize("file", [*PAGES, *CONFIGS], ids=name_of)
def test_modules_that_are_run_exist(file):
    for name in re.findall(r"python -m ((?:benchmarks|tests)(?:\.\w+)*)", read(file)):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_the_page_on_config_groups_names_every_group_and_option():
    text = read(ROOT / "docs" / "reference" / "config_groups.md")
    options = {file.relative_to(ROOT / "conf").with_suffix("") for file in CONFIGS}
    options.remove(Path("train"))
    for group in {option.parent for option in options}:
        rows = [set(re.findall(r"\w+", row)) for row in text.splitlines() if f"`{group}`" in row]
        names = {option.name for option in options if option.parent == group}
        assert any(names <= row for row in rows), group


def test_every_page_is_in_the_navigation_of_the_site():
    nav = read(ROOT / "mkdocs.yml").partition("\nnav:")[2]
    listed = re.findall(r"([\w/]+\.md)", nav)
    assert len(listed) == len(set(listed))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages | generated_pages().keys() == set(listed)
    for folder in {page.parent for page in PAGES}:
        assert len(list(folder.glob("*.md"))) <= 16, folder


def test_the_architecture_page_names_existing_modules():
    package = ROOT / "src" / "mlxlab"
    text = read(ROOT / "docs" / "explanation" / "architecture.md")
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        matches = [*package.rglob(name), *ROOT.glob(name)]
        assert matches, name
    for folder in re.findall(r"^\| `([a-z_/]+)/`", text, re.M):
        assert (package / folder).is_dir(), folder


def test_the_architecture_page_draws_the_layers_that_are_enforced():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("test_architecture", ROOT / "tests" / "test_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    architecture = module_from_spec(spec)
    spec.loader.exec_module(architecture)
    text = read(ROOT / "docs" / "explanation" / "architecture.md")
    drawing = text.split("## Layers")[1].split("```")[1]
    drawn = [
        set(re.findall(r"[a-z_]{3,}", re.sub(r"\(.*\)", "", line)))
        for line in drawing.splitlines()
        if line.strip()
    ]
    assert drawn == [set(layer) for layer in architecture.LAYERS]


def test_the_citation_names_the_version():
    text = read(ROOT / "CITATION.cff")
    assert re.findall(r"^version: (.+)$", text, re.M) == [mlxlab.__version__]


def train_commands():
    """Each once, however many pages show it."""
    return [list(args) for args in dict.fromkeys(map(tuple, all_train_commands()))]


def all_train_commands():
    for page in PAGES:
        text = read(page).replace("\\\n", " ")
        for line in re.findall(r"^scripts/train\.py (.*)$", text, re.M):
            args = shlex.split(line.removesuffix(" &"), comments=True)
            if "# exit code" not in line and "--help" not in args:
                yield args


LAUNCHER_PLUGINS = {  # option of hydra/launcher -> package
    "joblib": "hydra_joblib_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "submitit_slurm": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
}
RESUMED = {
    "model/adapter": "lora",
    "data": "streaming",
}  # options of the runs that documented commands resume


@pytest.mark.parametrize("args", train_commands(), ids=" ".join)
def test_every_documented_training_command_composes(args, monkeypatch):
    for option, package in LAUNCHER_PLUGINS.items():
        if f"hydra/launcher={option}" in args:
            pytest.importorskip(f"hydra_plugins.{package}")
    if any(arg.startswith("--config-dir") for arg in args):
        pytest.skip("has a test of its own that makes the folder")
    if "hydra/sweeper=search" not in args:
        if "-m" in args or any(arg.startswith("sweep=") for arg in args):  # the first job
            several = re.compile(r"=(?:range\((\d+)\)|([^\[{,]+),.*)")
            args = [several.sub(lambda m: f"={m[2] or 0}", arg) for arg in args]
        args = [arg for arg in args if arg != "-m"]
    monkeypatch.setattr(entry, "resumed_choices", lambda _: RESUMED)
    checked_config([*entry.resumed_options(args), *args])


@pytest.mark.parametrize("page", [ROOT / "README.md", *TRAINING_PAGES], ids=lambda page: page.stem)
def test_the_commands_of_a_page_can_be_pasted_in_order(page):
    """Each file or run folder that a command reads is made by an earlier one, except in the block on a user's own."""
    text = read(page).replace("\\\n", " ")
    made, num_uses = set(), 0
    for before, block in re.findall(r"([^\n]*)\n\n```sh\n(.*?)```", text, re.DOTALL):
        for line in () if before == "With files of your own:" else block.splitlines():
            command = line.partition(" #")[0]
            files = r"(?<![\w./])(?:outputs/\w+|\w+\.(?:csv|txt|jsonl|parquet|gguf)\b)"
            used = re.findall(files, command)
            outputs = r"(?:hydra\.run\.dir=|output=|\bout=|^cp \S+ |> )(\S+)"
            made |= set(re.findall(outputs, command))
            assert set(used) <= made, line
            num_uses += len(used)
    assert num_uses >= (12 if page.stem == "README" else 2)


def command_lines(text):
    """The name and the arguments of each command of mlxlab that is a line of the text."""
    lines = re.findall(r"^(?:scripts/|mlxlab )(\w+)(?:\.py)?( .*)$", text, re.M)
    return [[name, *shlex.split(args, comments=True)] for name, args in lines]


@pytest.mark.slow
def test_own_files_become_predictions_by_the_commands_of_the_page(tmp_path, monkeypatch):
    section = read(ROOT / "docs" / "how_to" / "training" / "own_data.md")
    readme = read(ROOT / "README.md")
    shutil.copy(ROOT / "src/mlxlab/data/titanic/titanic.csv", tmp_path / "my.csv")
    monkeypatch.chdir(tmp_path)
    tiny = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2")
    commands = command_lines(section)
    shown = readme.split("**Learn from a table of your own, and predict.**")[1].split("\n**")[0]
    shown_commands = command_lines(shown)
    assert len(shown_commands) == 2
    assert [command for command in shown_commands if command not in commands] == []
    sizes = ("model.num_heads=", "model.intermediate_size=")
    for name, *args in commands:
        settings = tiny if name == "train" else []
        if "model=bert" not in args:
            settings = [each for each in settings if not each.startswith(sizes)]
        done = run_here(*args, *settings, script=name)
        assert done.returncode == 0, done.stderr
    tutorial = read(ROOT / "docs" / "tutorials" / "your_csv.md")
    heading = re.search(r"^PassengerId,label.*$", tutorial, re.M)
    assert heading is not None
    assert (tmp_path / "predictions.csv").read_text().startswith(f"{heading[0]}\n1,")
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 1309
    submission = (tmp_path / "submission.csv").read_text().splitlines()
    assert submission[0] == "PassengerId,Survived"
    assert len(submission) == 419


def test_the_documented_loss_is_that_of_the_example():
    """tests/examples/test_own_parts.py trains with it."""
    text = (ROOT / "docs" / "how_to" / "extending.md").read_text()
    for kind, name in (
        ("python", "src/own_parts/loss.py"),
        ("yaml", "src/own_parts/conf/trainer/loss/brier.yaml"),
    ):
        [block] = re.findall(rf"```{kind}\n# {re.escape(name)}\n(.*?)```", text, re.DOTALL)
        assert block == (ROOT / "examples" / "own_parts" / name).read_text()
