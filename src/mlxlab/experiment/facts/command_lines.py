"""The command lines of a run, as its manifest records them."""

from typing import TYPE_CHECKING

from mlxlab.config.resume_overrides import override_name

if TYPE_CHECKING:
    from mlxlab.experiment.manifest import Inputs


def command_lines(inputs: "Inputs") -> tuple[list[str], list[str]]:
    """The overrides that began a run, and those with which it was continued, `resume` left out."""
    typed = inputs.get("overrides", [])
    first = inputs.get("first", typed)
    return first, [text for text in typed if text not in first and override_name(text) != "resume"]
