"""What a training costs, as it goes: tokens per second, memory, load of the machine."""

import resource
import sys
import time

import psutil

_MB = 2**20


class Meter:
    """Measures between calls; what it tells varies from run to run and is no out."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._tokens = 0.0
        # The first call measures since the process began.
        psutil.cpu_percent()

    def skip(self, tokens: float, seconds: float) -> None:
        """So many tokens were trained on by an earlier process, in so many seconds."""
        self._tokens = tokens
        self._began = self._last - seconds

    def read(self, tokens: float) -> dict[str, float]:
        """Measurements since the last call, under names of history.csv's kind or MLflow's own.

        Args:
            tokens: how many were trained on so far.
        """
        now = time.monotonic()
        passed, self._last = now - self._last, now
        done, self._tokens = tokens - self._tokens, tokens
        memory = psutil.virtual_memory()
        return {
            "tokens_per_second": done / passed if passed > 0 else 0.0,
            "system/peak_memory_megabytes": peak_memory_mb(),
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / _MB,
            "system/system_memory_usage_percentage": memory.percent,
        }

    def observed(self) -> dict[str, float]:
        """The whole training, whatever processes had a part in it, under the names that its run has."""
        seconds = time.monotonic() - self._began
        return {
            "train.seconds": round(seconds, 1),
            "train.mean_tokens_per_second": round(self._tokens / seconds, 1) if seconds > 0 else 0.0,
            "train.peak_memory_mb": round(peak_memory_mb()),
        }


def peak_memory_mb() -> float:
    """The most memory that this process held: the accelerator's where there is one, else its resident set."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / _MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else peak / 1024
