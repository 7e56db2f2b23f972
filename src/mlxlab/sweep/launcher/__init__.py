"""Launchers: how the jobs of a sweep run.

`open_jobs` (in `build`) opens the launcher of a config as `Jobs` (in `jobs`): `start(overrides, number)` starts a job,
`wait()` returns the `JobResult` of the next one that ends, `num_free` is how many more may be started now.
"""
