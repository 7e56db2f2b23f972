"""The kernels of a run: a resumed run uses those it began with, or is refused; all ranks use the same."""

from pathlib import Path

from mlxlab.backend.ops.native import state
from mlxlab.backend.ops.native.activation import (
    VARIABLE,
    Mode,
    activate,
    load_or_build,
    mode_from_environment,
)
from mlxlab.backend.ops.native.state import MLX
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable
from mlxlab.errors import ConfigError, InputNotFoundError, NotAllowedError
from mlxlab.record.run_file import read_run
from mlxlab.run.context import RunContext
from mlxlab.run.resume.start import Start
from mlxlab.terminal.messages import log_lines


def use_kernels(start: Start, context: RunContext) -> None:
    """Switches to the kernels of a run.

    Raises:
        ConfigError: `backend.native=require`, and there are none.
        NotAllowedError: the run began with others.
    """
    mode: Mode = start.cfg["backend"]["native"]
    earlier = context.group.broadcast_text(_earlier_kernels(start, context) or "")
    if earlier:
        resume_kernels(earlier, mode)
    else:
        activate(mode)
    own = str(state.current())
    is_other = own != context.group.broadcast_text(own)
    if context.group.all_reduce_max([int(is_other)]) != [0]:
        if earlier or (mode_from_environment() or mode) == "require":
            raise ConfigError(
                "backend.native: the processes of this run have different kernels; expected one machine"
            )
        log_lines("native kernels are not used: the processes of this run have different ones")
        state.deactivate()


def resume_kernels(earlier: str, mode: Mode) -> None:
    """Switches to the kernels that a run used so far, by their text; raises NotAllowedError if this process cannot."""
    variable = mode_from_environment()
    setting = f"backend.native={mode}"
    if variable:
        setting = f"{VARIABLE}={variable}"
        mode = variable
    state.deactivate()
    if earlier == str(MLX):
        if mode == "require":
            raise NotAllowedError(
                f"{setting}: the run began without native kernels, and continues without them"
            )
        return
    if mode == "off":
        raise NotAllowedError(
            f"{setting}: the run began with kernels {earlier}, and continues with them"
        )
    try:
        if str(load_or_build()) == earlier:
            return
        reason = f"here they are {state.current()}"
    except KernelsUnavailable as error:
        reason = f"which are not available: {error}"
    state.deactivate()
    raise NotAllowedError(
        f"the run began with kernels {earlier}; {reason}; start a new run in another folder"
    )


def mode_to_reproduce(earlier: str) -> Mode:
    """The mode in which a run is trained again with the kernels of an earlier one, which are built if need be."""
    if not earlier.startswith("native"):
        return "off"
    try:
        load_or_build()
    except KernelsUnavailable as reason:
        log_lines(f"kernels {earlier} are not available: {reason}")
    return "auto"


def kernels_of_run(folder: Path) -> str | None:
    """The kernels that the record of a run folder names; None if its training has not begun."""
    try:
        return read_run(folder).code.kernels or None
    except InputNotFoundError:
        return None


def _earlier_kernels(start: Start, context: RunContext) -> str | None:
    """The kernels of the run that continues, as rank 0 knows them; None for a new one."""
    if start.checkpoint is not None and start.continues:
        return start.checkpoint.state["metadata"]["kernels"]
    earlier = None
    if start.cfg["resume"] == "auto":  # The run may have ended before a checkpoint.
        earlier = kernels_of_run(context.run_dir)
    return earlier or context.kernels
