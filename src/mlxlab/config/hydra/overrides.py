"""Parses overrides one by one before they are composed."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hydra.conf import HydraConf, RuntimeConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.issues import ConfigIssue
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.wording import one_line


def parse(texts: list[str], multirun: bool) -> tuple[dict[str, Override], list[ConfigIssue]]:
    """(valid overrides by their text, issues). The path of an issue is the override as typed."""
    typed: dict[str, Override] = {}
    issues: list[ConfigIssue] = []
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
            expected = "put -m in front to run each of them, or [a,b] for a list"
            issues.append(ConfigIssue(label, f"several values: {expected}"))
    return typed, issues


def typed_values(overrides: Iterable[str]) -> dict[str, str]:
    """Key -> value of each override that sets one, as text: without quotation marks and escapes.

    It is as typed where it is no text, or cannot be parsed.
    """
    setting = (text for text in overrides if "=" in text and not text.startswith("~"))
    return {override_name(text): _text_of(text) for text in setting}


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
    sources = _running_job().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema in ("file", "mlxlab")]


def group_choices() -> dict[str, str]:
    """Group -> option of the running job; empty outside of a job."""
    choices = _running_job().runtime.choices
    return {
        str(group): str(option)
        for group, option in choices.items()
        if option and not group.startswith("hydra/")
    }


def _running_job() -> HydraConf:
    """The `hydra` node of the running job; one without overrides, folders and choices outside of a job."""
    if HydraConfig.initialized():
        return HydraConfig.get()
    return HydraConf(runtime=RuntimeConf(config_sources=[]))
