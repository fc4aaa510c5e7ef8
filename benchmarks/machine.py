"""What a measurement was taken on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine(*libraries: str) -> dict[str, str | int]:
    """Processor, cores, Python, and the versions of the libraries that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }
