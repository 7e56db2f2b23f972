"""The server of the jobs imports this last, so that collections of garbage do not copy its pages."""

import gc

gc.collect()
gc.freeze()
