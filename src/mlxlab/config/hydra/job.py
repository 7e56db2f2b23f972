"""Overrides, parsed one by one before they are composed, and jobs of Hydra: what a job finds in HydraConfig."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.conf import HydraConf, RuntimeConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.issues import ConfigIssue
from mlxlab.errors import ConfigError, UserError
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.wording import one_line

_NO_FOLDER = "(the run folder)"


def is_sweep_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def job_config(config: DictConfig, folder: str = _NO_FOLDER) -> Iterator[None]:
    """What a job would find in HydraConfig, its overrides above all.

    Args:
        folder: of the job, by default a placeholder.
    """
    before = HydraConfig.instance().cfg
    runtime = config.hydra.runtime
    if OmegaConf.is_missing(runtime, "output_dir") or runtime.output_dir == _NO_FOLDER:
        with read_write(config.hydra), open_dict(config.hydra):
            runtime.output_dir = folder
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def check_folder(config: DictConfig, key: str) -> None:
    """ConfigError for a folder without a name: Hydra would use the current one, or one called None."""
    try:
        folder = OmegaConf.select(config, key)
    except (OmegaConfBaseException, ConfigError) as error:
        raise ConfigError(f"{key}: {explain(error)}") from None
    if folder in (None, "", "-", "."):
        raise ConfigError(f"{key}={folder or ''}: expected the path of a folder")
    expanded = os.path.expanduser(str(folder))
    if expanded != str(folder):
        raise ConfigError(f"{key}={folder}: ~ is not expanded here; expected {expanded}")


def job_folder(config: DictConfig) -> Path:
    """The folder of a composed job; ConfigError if it is not inside that of the sweep."""
    with job_config(config):
        sweep = os.path.abspath(config.hydra.sweep.dir)
        subdir = str(config.hydra.sweep.subdir)
    folder = Path(os.path.abspath(os.path.join(sweep, subdir)))
    if Path(sweep) not in folder.parents:
        raise ConfigError(
            f"hydra.sweep.subdir={subdir}: expected a folder inside that of the sweep"
        )
    return folder


def set_number(config: DictConfig, number: int) -> None:
    """Numbers a job of a sweep, as Hydra does where it starts one."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number


def parse(texts: list[str], multirun: bool) -> tuple[dict[str, Override], list[ConfigIssue]]:
    """(valid overrides by their text, issues). The path of an issue is the override as typed."""
    typed = {}
    issues = []
    app = GlobalHydra.instance()
    parser = OverridesParser.create(app.config_loader() if app.is_initialized() else None)
    for text in texts:
        label = one_line(text, 80)
        try:
            [override] = parser.parse_overrides([text])
        except (OverrideParseException, RecursionError, ValueError) as error:
            message = "expected key=value"
            if "=" in text or text.startswith("~"):
                reason = one_line(str(error.__cause__ or error).partition("\n")[0], 120)
                message = f"cannot be read ({reason}); expected text in quotation marks: key='...'"
            issues.append(ConfigIssue(label, message))
            continue
        if multirun or not override.is_sweep_override():
            typed[text] = override
        else:
            issues.append(
                ConfigIssue(
                    label,
                    "several values: put -m in front to run each of them, or [a,b] for a list",
                )
            )
    return typed, issues


def typed_values(overrides: Iterable[str]) -> dict[str, str]:
    """Key -> value of each override that sets one, as text: without quotation marks and escapes.

    It is as typed where it is no text, or cannot be parsed.
    """
    return {
        override_name(text): _text_of(text)
        for text in overrides
        if "=" in text and not text.startswith("~")
    }


def _text_of(override: str) -> str:
    value = override.partition("=")[2]
    if not set(value) & set("'\"\\"):
        return value
    with suppress(OverrideParseException, RecursionError):
        [parsed] = OverridesParser.create().parse_overrides([override])
        text = parsed.value()
        if isinstance(text, str):
            value = text
            with suppress(OmegaConfBaseException):  # An interpolation of a config stays as it is.
                value = str(OmegaConf.create({"value": text}).value)
    return value


def as_typed(overrides: ListConfig) -> list[str]:
    """The texts of overrides; a `${hydra:job.num}` in them means nothing before a job runs."""
    return [str(text) for text in OmegaConf.to_container(overrides, resolve=False) or []]


def cli_overrides() -> list[str]:
    """The overrides of the running job; empty outside of a job."""
    return list(_running_job().overrides.task)


def typed_run_dir() -> str:
    """The text of `hydra.run.dir=` on the command line of the running job; empty if there is none."""
    for text in _running_job().overrides.hydra:
        if override_name(text) == "hydra.run.dir":
            return text.partition("=")[2]
    return ""


def config_folders() -> list[Path]:
    """The folders of config files of the running job, in the order of their precedence; empty outside of a job."""
    return [
        Path(source.path)
        for source in _running_job().runtime.config_sources
        if source.schema in ("file", "mlxlab")
    ]


def group_choices() -> dict[str, str]:
    """Group -> option of the running job; empty outside of a job."""
    return {
        str(group): str(option)
        for group, option in _running_job().runtime.choices.items()
        if option and not group.startswith("hydra/")
    }


def _running_job() -> HydraConf:
    """The `hydra` node of the running job; one without overrides, folders and choices outside of a job."""
    if HydraConfig.initialized():
        return HydraConfig.get()
    return HydraConf(runtime=RuntimeConf(config_sources=[]))


def explain(error: Exception) -> str:
    """The first line of an error, or of what caused it where Hydra says nothing of its own."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return text
    if not text or text.startswith("Error merging override"):
        text = str(error.__cause__ or type(error).__name__).strip()
    return one_line(text.replace(":\n", ": ").partition("\n")[0])  # Advice follows.
