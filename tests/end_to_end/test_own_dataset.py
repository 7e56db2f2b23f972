"""A data set class of a user: it trains, is evaluated and restored."""

import json
import re

import pytest
import yaml

from support.processes import ROOT, final_state, passed, run, succeed, tiny_overrides

CODE = (ROOT / "tests" / "support" / "reviews_dataset.py").read_text()
NODE = """
_target_: own_parts.dataset.Reviews
source: ???
seq_len: 64
batch_size: 8
"""
SETTINGS = [
    *(
        setting
        for setting in tiny_overrides("trainer.max_steps=20", "trainer.eval_every=10")
        if not setting.startswith(("data.prefetch", "data.baselines"))
    ),
    "data=reviews",
    "trainer.learning_rate=0.003",
]


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


def test_a_data_set_of_a_user_is_evaluated_as_it_was_in_training(project, trained):
    evaluated = succeed(f"run={trained}", script="evaluate", **environment(project))
    assert "accuracy" in evaluated.stdout
    assert "the validation data of the run" in evaluated.stderr


def test_rows_are_predicted_and_evaluated_as_in_training(project, trained, tmp_path):
    texts = [line.split("\t") for line in (project / "reviews.tsv").read_text().splitlines()[48:]]
    (tmp_path / "rows.csv").write_text(
        "\n".join(["label,text", *(f'{label},"{text}"' for label, text in texts)]) + "\n"
    )
    args = [f"input={tmp_path / 'rows.csv'}", f"output={tmp_path / 'out.jsonl'}"]
    succeed(f"run={trained}", *args, script="predict", **environment(project))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    accuracy = sum(
        row["label"] == label for row, (label, _) in zip(rows, texts, strict=True)
    ) / len(texts)
    for source in ([], [f"data.source={tmp_path / 'rows.csv'}"]):
        evaluated = run(f"run={trained}", *source, script="evaluate", **environment(project))
        assert re.search(rf"\| accuracy +\| +{accuracy:.4f} \|", evaluated.stdout), evaluated


def test_other_data_is_refused_in_one_line_where_the_encoder_reads_no_rows(
    project, trained, tmp_path
):
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_parts" / "dataset.py").write_text(
        CODE.replace("def encode_rows", "def encode")
    )
    source = f"data.source={project / 'reviews.tsv'}"
    refused = run(
        f"run={trained}",
        source,
        script="evaluate",
        **environment(project) | {"PYTHONPATH": str(tmp_path)},
    )
    assert refused.returncode == 2, refused.stderr
    assert "own_parts.dataset.Reviews is evaluated on its validation data only" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_run_folder_does_not_import_a_class_that_is_not_allowed(project, trained):
    (project / "hostile.py").write_text("raise SystemExit('imported')\nclass Data:\n    pass\n")
    config = trained / "inference" / "config.yaml"
    original = config.read_text()
    node = yaml.safe_load(original)
    node["data"]["_target_"] = "hostile.Data"
    config.write_text(yaml.safe_dump(node))
    try:
        refused = run(f"run={trained}", script="evaluate", **environment(project))
    finally:
        config.write_text(original)
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
