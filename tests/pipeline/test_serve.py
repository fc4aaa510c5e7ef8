"""A registered model over HTTP, as MLflow serves it, asked by a plain client."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry.sync import register
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect, tracking_uri
from tests.conftest import run_stages
from tests.servers import free_port

GOOD, BAD = ("lovely", "superb", "fine"), ("dreadful", "dull", "poor")
THINGS = ("hotel", "meal", "film", "book", "shop", "trip", "phone", "chair", "song", "game")


@pytest.fixture
def served(workspace):
    """The address of a server that a classification's registered version answers at."""
    rows = [
        {"text": f"The {thing} was {word}, visit {number}.", "label": "good" if word in GOOD else "bad"}
        for number in range(3)
        for thing in THINGS
        for word in (*GOOD, *BAD)
    ]
    (workspace / "mood.json").write_text(json.dumps(rows))
    task = Task(
        kind="classification",
        base="data/bases/tiny-bloom.json",
        data="mood.json",
        quality={"near_duplicate": 1.0, "off": ["leak"]},
        train={"min_steps": 120, "epochs": 1, "batch_size": 16},
    )
    place = TaskPlace("mood")
    run_stages(task, place)
    register(connect(), record_of_workspace("mood"))
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/biasline-mood@candidate"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri()}
    with (workspace / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def ask(address, body, patience=0.0):
    """(status, answer) of a request; tried again for so many seconds while nobody listens."""
    until = time.monotonic() + patience
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/invocations", data, {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def test_a_served_classification_answers_with_labels_and_probabilities(served):
    address, server = served
    asked = ["The hotel was lovely, visit 1.", "The hotel was dreadful, visit 1."]
    status, answer = ask(address, {"dataframe_records": [{"text": text} for text in asked]}, patience=120)
    assert status == 200, answer
    assert [row["label"] for row in answer["predictions"]] == ["good", "bad"]
    assert all(0.5 < row["probability"] <= 1.0 for row in answer["predictions"])
    pair = {"dataframe_split": {"columns": ["text", "text_pair"], "data": [["The cake", "was lovely"], ["So", None]]}}
    status, answer = ask(address, pair)
    assert status == 200 and len(answer["predictions"]) == 2

    for wrong in (
        b"",
        b"{",
        {"dataframe_records": [{"txt": "a"}]},
        {"dataframe_records": [{"text": " "}]},
        {"rows": []},
    ):
        status, answer = ask(address, wrong)
        assert 400 <= status < 500, (wrong, status, answer)
    assert "row 1: `text` must be a text" in ask(address, {"dataframe_records": [{"text": " "}]})[1]
    assert server.poll() is None
    assert ask(address, {"dataframe_records": [{"text": asked[0]}]})[0] == 200
