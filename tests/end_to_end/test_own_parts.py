"""A data set, a backbone and a loss of the user's own: trained, evaluated, restored, checked when they are built."""

import json
import re
import shutil

import pytest
import yaml

from mlxlab.data.titanic.dataset import FOLDER
from support.documented_commands import files
from support.processes import ROOT, TINY, final_state, passed, run, succeed, tiny_overrides

CODE = (ROOT / "tests" / "support" / "reviews_dataset.py").read_text()
NODE = """
_target_: own_parts.dataset.Reviews
source: ???
seq_len: 64
batch_size: 8
"""
SETTINGS = [
    setting
    for setting in tiny_overrides("trainer.max_steps=20", "trainer.eval_every=10")
    if not setting.startswith(("data.prefetch", "data.baselines"))
]
SETTINGS += ["data=reviews", "trainer.learning_rate=0.003"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the class, its config and its data, and the environment that allows it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_conf" / "data").mkdir(parents=True)
    (folder / "my_conf" / "data" / "reviews.yaml").write_text(NODE)
    (folder / "own_parts").mkdir()
    (folder / "own_parts" / "dataset.py").write_text(CODE)
    texts = {"positive": "a great and lovely film", "negative": "a dull and tedious film"}
    lines = [f"{label}\t{texts[label]}, number {n}" for n in range(30) for label in texts]
    (folder / "reviews.tsv").write_text("\n".join(lines) + "\n")
    return folder


def environment(project):
    return {"PYTHONPATH": str(project), "MLXLAB_ALLOWED_TARGETS": "own_parts.dataset.Reviews"}


def train(project, folder, *settings, **changes):
    texts = ["--config-dir", str(project / "my_conf"), *SETTINGS]
    texts += [f"data.source={project / 'reviews.tsv'}"]
    return run(*texts, f"hydra.run.dir={folder}", *settings, **(environment(project) | changes))


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "reviews"
    finished = passed(train(project, folder))
    assert final_state(finished)
    return folder


def test_rows_of_a_function_are_trained_on_and_evaluated(tmp_path):
    row = "{'text': f'film {n} is {\"ab\"[n % 2]}', 'label': 'xy'[n % 2]}"
    code = f"def rows(count):\n    return [{row} for n in range(count)]\n"
    (tmp_path / "mine.py").write_text(code)
    allowed = {"PYTHONPATH": str(tmp_path), "MLXLAB_ALLOWED_TARGETS": "mine.rows"}
    own = ["data=text_classification", "model=bert", "data.source={_target_: mine.rows, count: 60}"]
    tiny = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
    done = succeed(*tiny, *own, f"hydra.run.dir={tmp_path / 'run'}", **allowed)
    done = succeed(f"run={tmp_path / 'run'}", script="evaluate", **allowed)
    assert "accuracy" in done.stdout


def test_rows_are_predicted_and_evaluated_as_in_training(project, trained, tmp_path):
    texts = [line.split("\t") for line in (project / "reviews.tsv").read_text().splitlines()[48:]]
    rows = "".join(f'{label},"{text}"\n' for label, text in texts)
    (tmp_path / "rows.csv").write_text(f"label,text\n{rows}")
    args = [f"input={tmp_path / 'rows.csv'}", f"output={tmp_path / 'out.jsonl'}"]
    succeed(f"run={trained}", *args, script="predict", **environment(project))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    right = [row["label"] == label for row, (label, _) in zip(rows, texts, strict=True)]
    accuracy = sum(right) / len(right)
    for source in ([], [f"data.source={tmp_path / 'rows.csv'}"]):
        evaluated = run(f"run={trained}", *source, script="evaluate", **environment(project))
        assert re.search(rf"\| accuracy +\| +{accuracy:.4f} \|", evaluated.stdout), evaluated


def test_a_run_folder_does_not_import_a_class_that_is_not_allowed(project, trained, tmp_path):
    (project / "hostile.py").write_text("raise SystemExit('imported')\nclass Data:\n    pass\n")
    folder = shutil.copytree(trained, tmp_path / "run")
    config = folder / "inference" / "config.yaml"
    node = yaml.safe_load(config.read_text())
    node["data"]["_target_"] = "hostile.Data"
    config.write_text(yaml.safe_dump(node))
    refused = run(f"run={folder}", script="evaluate", **environment(project))
    assert refused.returncode == 77, refused.stderr
    assert "hostile.Data" in refused.stderr
    assert "imported" not in refused.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("self.class_counts = ", "counts = ", "lacks class_counts of mlxlab.data.dataset.DataM"),
        (
            "batch.targets[rows],",
            "batch.targets[rows][:, None].astype(float),",
            "valid: targets: expected integers of shape (8,), got float64 of shape (8, 1)",
        ),
    ],
)
def test_a_data_set_is_checked_with_its_first_rows_when_it_is_built(
    project, tmp_path, old, new, message
):
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "dataset.py").write_text(CODE.replace(old, new))
    refused = train(project, tmp_path / "run", PYTHONPATH=str(tmp_path))
    assert refused.returncode == 2, refused.stderr
    assert f"Reviews: {message}" in refused.stderr
    assert "Traceback" not in refused.stderr


BACKBONES = '''
"""A bag of words: the mean of the embeddings of a document."""

import mlx.core as mx
import mlx.nn as nn


class BagOfWords(nn.Module):
    """Tokens (B, T) -> states (B, T, D)."""

    causal = False
    separates_documents = True
    classifier_hidden_size = 0
    position_limit = None

    def __init__(self, dimensions: int, context: int = 128, *, vocab_size: int) -> None:
        super().__init__()
        self.hidden_size = self.output_size = self.pooled_size = dimensions
        self.max_position_embeddings = context
        self.embedding = nn.Embedding(vocab_size, dimensions)
        self.mix = nn.Linear(dimensions, dimensions)

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        x = self.embedding(tokens)
        documents = mask.astype(mx.int32)
        same = (documents[:, :, None] == documents[:, None, :]) & (documents > 0)[:, None]
        weights = same / mx.maximum(same.sum(axis=-1, keepdims=True), 1)
        return x + self.mix(weights @ x)

    def pool(self, x: mx.array, mask: mx.array) -> mx.array:
        real = (mask > 0)[..., None]
        return (x * real).sum(axis=1) / mx.maximum(real.sum(axis=1), 1)

    def remove_pooler(self) -> None:
        """Pooling has no parameters."""


class Unfinished(nn.Module):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
'''
CLASSES = "my_models.BagOfWords,my_models.Unfinished"


@pytest.fixture
def own(tmp_path):
    """Runs a script with the user's module and config folder."""
    (tmp_path / "my_models.py").write_text(BACKBONES)
    folder = tmp_path / "my_conf" / "model"
    folder.mkdir(parents=True)
    (folder / "bag.yaml").write_text("_target_: my_models.BagOfWords\ndimensions: 16\n")
    (folder / "unfinished.yaml").write_text("_target_: my_models.Unfinished\n")
    omitted = ("model.", "trainer.", "data.baselines")
    settings = [f"--config-dir={tmp_path}/my_conf", "trainer.max_steps=4"]
    settings += [setting for setting in TINY if not setting.startswith(omitted)]

    def call(*args, script="train"):
        if script == "train":
            args = (*settings, *args)
        return run(*args, script=script, PYTHONPATH=str(tmp_path), MLXLAB_ALLOWED_TARGETS=CLASSES)

    return call


def test_an_own_backbone_is_trained_and_evaluated_as_a_classifier(own, tmp_path):
    passed(own("model=bag", "data.source=synthetic", f"hydra.run.dir={tmp_path}/run"))
    shutil.copyfile(FOLDER / "titanic.csv", tmp_path / "rows.csv")
    source = f"data.source={tmp_path}/rows.csv"
    assert "accuracy" in passed(own(f"run={tmp_path}/run", source, script="evaluate")).stdout


def test_an_own_backbone_is_trained_as_a_masked_language_model(own, tmp_path):
    text = tmp_path / "text.jsonl"
    rows = [{"text": f"{n} fish {n + 1} fish red fish blue fish"} for n in range(300)]
    text.write_text("\n".join(map(json.dumps, rows)))
    args = ["data=streaming", f"data.source={text}", "data.tokenizer.vocab_size=270"]
    args += ["data.seq_len=16", "data.valid_fraction=0.1"]
    passed(own("model=bag", "model/size=none", *args, f"hydra.run.dir={tmp_path}/run"))


def test_a_backbone_that_lacks_members_is_refused_by_their_names(own, tmp_path):
    args = ["model=unfinished", "model/size=none", "data.source=synthetic"]
    done = own(*args, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "my_models.Unfinished: not a backbone, it has no causal, hidden_size" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_documented_function_is_trained_with_as_a_loss(tmp_path):
    blocks = files(ROOT / "docs" / "how_to" / "extending.md")
    for name in ("hinge.py", "my_conf/trainer/loss/hinge.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(blocks[name])
    args = tiny_overrides("trainer.max_steps=2", "trainer.eval_every=2")
    args += [f"--config-dir={tmp_path}/my_conf", "trainer/loss=hinge"]
    args += [f"hydra.run.dir={tmp_path}/run"]
    succeed(*args, PYTHONPATH=str(tmp_path), MLXLAB_ALLOWED_TARGETS="hinge.Hinge")
    assert "hinge.Hinge" in (tmp_path / "run" / "inference" / "config.yaml").read_text()
