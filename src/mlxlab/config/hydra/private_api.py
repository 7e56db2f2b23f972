"""Private names of Hydra that other packages use; a new version of Hydra may move them."""

from hydra._internal.callbacks import Callbacks as Callbacks
from hydra._internal.hydra import Hydra as Hydra
from hydra._internal.utils import get_args_parser as get_args_parser
