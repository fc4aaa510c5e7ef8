"""The tracking server goes away while a model is made: nothing stops, and `biasline sync` misses nothing."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.servers import free_port, tracking_server

FOUND = """
import json
from biasline.serving.registered import aliased
from biasline.tracking.store import connect
client = connect()
[run] = client.search_runs([client.get_experiment_by_name("instruct").experiment_id])
points = {
    name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
    for name in ("train.loss", "valid.loss", "train.tokens_per_second")
}
candidate = aliased(client, "instruct", "candidate")
print(json.dumps([run.info.status, run.data.metrics, points, candidate and candidate.run_id == run.info.run_id]))
"""


@pytest.mark.slow
def test_a_server_killed_in_mid_training_costs_a_warning(project, tmp_path):
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    text = text[: text.index("  # The same frozen base")].replace("min_steps: 400", "min_steps: 150")
    text = text.replace("epochs: 3", "epochs: 0.1") + "      max_new_tokens: 2\n"
    (project.folder / "params.yaml").write_text(text, encoding="utf-8")
    project.run("dvc repro tokenize@instruct")
    store, port = tmp_path / "store", free_port()
    store.mkdir()
    database, kept = f"sqlite:///{store}/runs.db", ("--artifacts-destination", str(store / "artifacts"))
    with tracking_server(store, database, *kept, port=port) as (address, server):
        environment = {**os.environ, "MLFLOW_TRACKING_URI": address, "PYTHONPATH": str(project.folder / "src")}
        command = [sys.executable, "-m", "stages.train", "instruct"]
        with (tmp_path / "train.log").open("w") as log:
            training = subprocess.Popen(command, cwd=project.folder, env=environment, stdout=log, stderr=log)
            noted = project.folder / ".biasline" / "records" / "instruct"
            wait_for(
                lambda: sum(len(path.read_text().splitlines()) for path in noted.glob("*/live.running.jsonl")) >= 4
            )
            os.killpg(server.pid, signal.SIGKILL)
            assert training.wait(timeout=600) == 0, (tmp_path / "train.log").read_text()
    told = (tmp_path / "train.log").read_text()
    assert "warning: not tracked live" in told and "kept step" in told
    away = {"MLFLOW_TRACKING_URI": address}
    assert "warning: not published" in project.run("python -m stages.evaluate instruct", **away).stderr
    registered = project.run("python -m stages.register instruct", **away)
    assert "warning: not registered" in registered.stderr and "`biasline sync` registers it" in registered.stdout
    assert "does not answer" in project.run("biasline sync instruct", check=False, **away).stderr

    with tracking_server(store, database, *kept, port=port):
        assert "made while the store was away, is the candidate" in project.run("biasline sync instruct", **away).stdout
        status, metrics, points, is_candidate = json.loads(project.python(FOUND, **away).splitlines()[-1])
        again = project.run("biasline sync instruct", **away).stdout
    assert status == "FINISHED" and is_candidate
    with (project.folder / "data/instruct/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert points["train.loss"] == [[int(row["step"]), float(row["loss"])] for row in rows]
    assert points["valid.loss"] == [[int(row["step"]), float(row["valid_loss"])] for row in rows if row["valid_loss"]]
    assert [step for step, _ in points["train.tokens_per_second"]] == [int(row["step"]) for row in rows]
    assert {"tuned.exact_match", "train.seconds", "tuned.latency_ms", "model.bytes"} <= set(metrics)
    assert "registered anew" not in again and "made while" not in again


def wait_for(found):
    until = time.monotonic() + 600
    while not found():
        assert time.monotonic() < until
        time.sleep(0.2)
