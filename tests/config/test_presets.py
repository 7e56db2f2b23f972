"""Every option of conf/ composes to a valid config, and so does every documented combination."""

import pytest

from mlxlab.config.hydra.compose import compose
from mlxlab.config.option_files import groups
from mlxlab.config.paths import conf_dir
from mlxlab.files.yaml_file import read_yaml
from support.configs import line  # noqa: F401

OPTIONS = groups([conf_dir()])
SHAPE = ["model.hidden_size=16", "model.num_layers=1", "model.num_heads=2"]
SHAPE.append("model.intermediate_size=16")
REQUIRED_OVERRIDES = {
    "cloud=azure": ["cloud.bucket=container"],
    "cloud=directory": ["cloud.path=copies"],
    "cloud=gcs": ["cloud.bucket=bucket"],
    "cloud=s3": ["cloud.bucket=bucket"],
    "data/order": ["data=streaming"],
    "data/order=staged": ["data=streaming", "data.order.stages=[[0, {a.jsonl: 1}]]"],
    "data/tokenizer": ["data=streaming"],
    "experiment=cloud": ["cloud.bucket=bucket"],
    "model/rope_scaling": ["model=transformer"],
    "model/size": SHAPE,
    "trainer/loss": ["trainer=distill", "trainer.teachers=[]"],
    "trainer/loss/router": ["trainer=distill", "trainer.teachers=[]"],
}  # overrides that the options of a group, or one of them, need
REQUIRED_KEYS = {
    "text_classification": ["data.source=rows.csv"],
    "table": ["data.source=rows.csv", "data.target=price"],
    "instruct": ["data.source=conversations.jsonl"],
    "distill": ["trainer.teachers=[outputs/teacher]"],
}  # keys of a data set or a trainer that have no default
NO_MARKS: list[pytest.MarkDecorator] = []
COMBINATIONS = [  # every model, data set and trainer; those without the marker have every pair of options in them
    pytest.param(model, data, trainer, trackers[number % len(trackers)], marks=marks)
    for trackers in [list(OPTIONS["tracking"])]
    for m, model in enumerate(OPTIONS["model"])
    for d, data in enumerate(OPTIONS["data"])
    for number, trainer in enumerate(OPTIONS["trainer"], m + d)
    for marks in [
        NO_MARKS if number % len(OPTIONS["trainer"]) == 0 else [pytest.mark.fault_injection]
    ]
]


def composed(*overrides):
    return compose(list(overrides))


@pytest.mark.parametrize(
    "choice", [f"{group}={option}" for group, options in OPTIONS.items() for option in options]
)
def test_every_option_of_conf_is_valid(choice):
    group, _, option = choice.partition("=")
    overrides = REQUIRED_OVERRIDES.get(choice, REQUIRED_OVERRIDES.get(group, []))
    required = REQUIRED_KEYS.get(option, []) if group in ("data", "trainer") else overrides
    # These groups are in no defaults list of their parents.
    added = "+" if group in ("model/rope_scaling", "trainer/loss/router") else ""
    composed(*required, f"{added}{choice}")


@pytest.mark.parametrize(("model", "data", "trainer", "tracking"), COMBINATIONS)
def test_every_combination_of_options_is_valid(model, data, trainer, tracking):
    chosen = [f"model={model}", f"data={data}", f"trainer={trainer}", f"tracking={tracking}"]
    composed(*chosen, *REQUIRED_KEYS.get(data, []), *REQUIRED_KEYS.get(trainer, []))


def test_every_file_of_conf_keeps_the_limits_of_users_files():
    for file in conf_dir().rglob("*"):
        if file.is_file():
            assert file.suffix == ".yaml"
            read_yaml(file)
    for group, options in OPTIONS.items():
        assert all(options.values()), f"an option of {group} has no first comment"


def test_the_command_line_wins_over_debug_over_experiment_over_files():
    assert composed("experiment=standard").model.hidden_size == 256
    assert composed("experiment=standard", "model/size=nano").model.hidden_size == 128
    both = composed("experiment=standard", "debug=overfit")
    assert both.trainer.learning_rate == 1e-3
    assert "NoTracker" in both.tracking._target_
    typed = composed("debug=overfit", "trainer.learning_rate=2e-3", "tracking=mlflow")
    assert typed.trainer.learning_rate == 2e-3
    assert typed.tracking._target_ == "mlxlab.tracking.journal.Journal"
    # Pretrained weights are tuned at a rate for that.
    assert composed("experiment=quick").trainer.learning_rate == 1e-3
    assert composed("experiment=quick", "model.pretrained=here").trainer.learning_rate == 2e-5
