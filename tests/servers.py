"""Servers that tests start on this machine, and stop with all that they started."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def healthy(address: str) -> bool:
    """Whether an MLflow server answers."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=60) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def running(command: list[str], log: Path, answers: Callable[[], bool], **options) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own: waited for, and ended with all that it started."""
    with log.open("a") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
    try:
        until = time.monotonic() + 600
        while not answers():
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        # PostgreSQL leaves shared memory behind when it is killed at once, and its quick stop is SIGINT.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(timeout=600)
        except subprocess.TimeoutExpired:
            print(f"{command[0]} does not stop:\n{log.read_text()}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextmanager
def tracking_server(folder: Path, store: str, *options: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address and process of an `mlflow server`.

    Args:
        folder: where it runs and logs.
        store: URI of its database.
        options: further ones of the command line.
    """
    address = f"http://127.0.0.1:{(port := port or free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, *options]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, folder / "server.log", lambda: healthy(address), cwd=folder, env=environment) as server:
        yield address, server
