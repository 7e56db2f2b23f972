"""A callback with which a real run ends in every way that a job of a sweep can."""

import faulthandler
import os
import signal
import sys
import time

from mlxlab.errors import DataError
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

STEP = 8  # after the first checkpoint


class Fault(Callback):
    """Acts after step 8.

    Args:
        way: raise, data, exit, kill, crash, hang, memory, or none.
    """

    def __init__(self, way: str) -> None:
        self.way = way

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if state.progress.step < STEP:
            return
        match self.way:
            case "raise":
                raise ZeroDivisionError("planted")
            case "data":
                raise DataError("rows.csv:3:5: a number was expected")
            case "exit":
                sys.exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "crash":
                faulthandler._sigsegv()
            case "hang":
                time.sleep(600)
            case "memory":
                self.held = [b"x" * 2**26 for _ in range(40)]
                time.sleep(600)
