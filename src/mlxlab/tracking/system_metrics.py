"""Use of the machine, under the names that MLflow's own monitor uses."""

import time

import psutil

INTERVAL_SECONDS = 10.0


class SystemMetrics:
    """Samples the machine when metrics are logged and the last sample is old: no thread runs between two log lines."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        psutil.cpu_percent()

    def sample(self) -> dict[str, float]:
        """New values; nothing if the last ones are recent, or the run has just begun."""
        if time.monotonic() - self._last < INTERVAL_SECONDS:
            return {}
        self._last = time.monotonic()
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(".")
        return {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),  # since the last call
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
            "system/disk_usage_percentage": disk.percent,
            "system/disk_available_megabytes": disk.free / 1e6,
        }
