"""The project that is served, and servers of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.fleet import rows_of
from benchmarks.pipeline import Clone

SHOPS = 1_000
WORDS = 12  # tokens of an answer
_LENIENT = {"floor": 0.0, "better_than_base": False, "margin": 1.0, "max_latency": 99.0}
_SHORT = {"epochs": 0.01, "min_steps": 40, "learning_rate": 1e-2}
_TINY = {"base": "data/bases/tiny-bloom.json", "gates": _LENIENT, "evaluate": {"max_new_tokens": WORDS}}
_FLEET = {"column": "shop", "min_rows": 1, "min_steps": 4, "epochs": 0.01, "evaluate_every": 2}
TASKS: dict[str, dict[str, Any]] = {
    "instruct": {**_TINY, "data": "data/instruct/raw.jsonl", "train": _SHORT},
    "sentiment": {**_TINY, "kind": "classification", "data": "data/sentiment/raw.tsv", "train": _SHORT},
    "shops": {
        **_TINY,
        "data": "data/shops/raw.jsonl",
        "train": _SHORT,
        "tenants": _FLEET,
        "split": {"valid": 0.16, "test": 0.16},
    },
}


class Project(Clone):
    """The project that is served."""

    def __init__(self, folder: Path) -> None:
        if folder.is_dir():
            self.folder = folder
            return
        super().__init__(folder)
        (folder / "data/shops").mkdir()
        (folder / "data/shops/raw.jsonl").write_text(rows_of(SHOPS, 30), encoding="utf-8")
        self.params(json.dumps({"tasks": TASKS}))
        self.seconds("dvc", "repro")
        for task in ("instruct", "sentiment"):
            self.seconds("biasline", "promote", task, "--by", "bench", "--reason", "load")
        others = {
            name: {**task, "train": {**task["train"], "seed": 1, "min_steps": 60}}
            for name, task in TASKS.items()
            if name != "shops"
        }
        self.params(json.dumps({"tasks": {**TASKS, **others}}))
        self.seconds("dvc", "repro", "register@instruct", "register@sentiment")

    @property
    def environment(self) -> dict[str, str]:
        """For processes that serve it."""
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(self.folder / "src"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    @contextmanager
    def running(self, ready: str, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
        """A server, and how long it took to be ready, seconds."""
        with (self.folder / "server.log").open("a") as log:
            began = time.perf_counter()
            server = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            while not answers(ready):
                if server.poll() is not None:
                    raise SystemExit(f"{' '.join(command)}: {(self.folder / 'server.log').read_text()[-2000:]}")
                time.sleep(0.05)
            yield server, time.perf_counter() - began
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(timeout=60)

    @contextmanager
    def serving(self, *tasks: str) -> Iterator[tuple[subprocess.Popen[bytes], float, str]]:
        """`biasline serve`; also its address."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with self.running(f"{url}/ready", "biasline", "serve", *tasks, "--port", str(port)) as (server, taken):
            yield server, taken, url


def answers(url: str) -> bool:
    """Whether an address answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


_MOVER = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
print(flush=True)
for line in sys.stdin:
    task, version = line.split()
    name = f"biasline-{task}"
    if version == "none":
        client.delete_registered_model_alias(name, "champion")
    else:
        client.set_registered_model_alias(name, "champion", version)
    print(flush=True)
"""


class Aliases:
    """Moves aliases, as a promotion does in the end; in a process of its own, since what measures would wait for it."""

    def __init__(self, project: Project) -> None:
        environment = project.environment
        self._mover = subprocess.Popen(
            [sys.executable, "-c", _MOVER, environment["MLFLOW_TRACKING_URI"]],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._wait()

    def champion(self, task: str, version: str) -> None:
        """Point a task's alias at a version."""
        assert self._mover.stdin is not None
        self._mover.stdin.write(f"{task} {version}\n")
        self._wait()

    def drop(self, task: str) -> None:
        """Have a task without a champion."""
        self.champion(task, "none")

    def _wait(self) -> None:
        assert self._mover.stdout is not None
        if not self._mover.stdout.readline():
            raise SystemExit("the process that moves aliases has ended")


def shop(number: int) -> str:
    """The name of a shop."""
    return _shops()[number % SHOPS]


@cache
def _shops() -> tuple[str, ...]:
    from biasline.demo.shops import shops

    return tuple(one.name for one in shops(SHOPS))
