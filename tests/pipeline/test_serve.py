"""Registered models over HTTP, as MLflow serves them, asked by a plain client."""

import http.client
import json
import os
import sys
from contextlib import contextmanager

import psutil
import pytest

from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry.sync import register
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect, tracking_uri
from tests.conftest import run_stages
from tests.pipeline.malformed import Request, as_json, damaged, malformed, malformed_instructions, not_ours, odd
from tests.servers import free_port, healthy, running

GOOD, BAD = ("lovely", "superb", "fine"), ("dreadful", "dull", "poor")
THINGS = ("hotel", "meal", "film", "book", "shop", "trip", "phone", "chair", "song", "game")
# An answer takes milliseconds, on a machine with other work who knows how long. One that takes this long hangs.
SECONDS = 600


class Client:
    """Asks one server; Python's own HTTP client and nothing else."""

    def __init__(self, port, server):
        self.port, self.server = port, server

    def send(self, request):
        """(status, text) of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"Content-Type": request.content_type} if request.content_type else {}
        try:
            connection.request(request.method, request.path, request.body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def predictions(self, body):
        """The answers to a well-formed request."""
        status, text = self.send(body if isinstance(body, Request) else as_json("", body))
        assert status == 200, (body, text)
        return json.loads(text)["predictions"]

    def processes(self):
        """The server's own and those that it started."""
        mine = psutil.Process(self.server.pid)
        return sorted(process.pid for process in (mine, *mine.children(recursive=True)))

    def refuses(self, requests):
        """What was not refused as it should, in words."""
        found = []
        for request in requests:
            status, text = self.send(request)
            if not 400 <= status < 500 or not text or request.says not in text:
                found.append(f"{request.name}: {status}, wanted {request.says!r}: {text[:300]}")
        return found


@contextmanager
def served(task, workspace):
    """A client of a server that the task's candidate answers at."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/biasline-{task}@candidate"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri()}
    address = f"http://127.0.0.1:{port}"
    with running(command, workspace / "server.log", lambda: healthy(address), env=environment) as server:
        yield Client(port, server)


def hold(client, first, second, further, asked):
    """Whether malformed requests are refused, odd ones answered, and the server answers afterwards as it did before.

    Args:
        first, second: the kind's text columns.
        further: malformed requests of this kind alone.
        asked: a well-formed request.
    """
    before, processes = client.predictions(asked), client.processes()
    requests = [*malformed(first, second), *further]
    assert len({(one.method, one.path, one.content_type, one.body) for one in requests}) == len(requests) > 200
    assert client.refuses(requests) == []
    assert client.predictions(asked) == before
    assert [request for request in damaged(asked) if client.send(request)[0] >= 500] == []
    for request in odd(first, second):
        client.predictions(request)
    for request, status, why in not_ours(first, second):
        assert client.send(request)[0] == status, f"{request.name}: {why}: is it otherwise now?"
    assert client.predictions(asked) == before
    assert client.processes() == processes


@pytest.mark.slow
def test_a_served_classification_answers_refuses_and_lives_on(workspace):
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
    run_stages(task, TaskPlace("mood"))
    register(connect(), record_of_workspace("mood"))
    texts = ["The hotel was lovely, visit 1.", "The hotel was dreadful, visit 1."]
    records = [{"text": text} for text in texts]
    with served("mood", workspace) as client:
        answers = client.predictions({"dataframe_records": records})
        assert [row["label"] for row in answers] == ["good", "bad"]
        assert all(0.5 < row["probability"] <= 1.0 for row in answers)
        split = {"columns": ["text"], "data": [[text] for text in texts]}
        for body in ({"dataframe_split": split}, {"inputs": records}, {"instances": records}):
            assert client.predictions(body) == answers
        pairs = {"columns": ["text", "text_pair"], "data": [["The cake", "was lovely"], ["So", None]]}
        columns = {"text": ["The cake", "So"], "text_pair": ["was lovely", None]}
        assert client.predictions({"dataframe_split": pairs}) == client.predictions({"inputs": columns})
        hold(client, "text", "text_pair", [], {"dataframe_records": records})


@pytest.mark.slow
def test_a_served_instruction_task_answers_refuses_and_lives_on(trained, workspace):
    register(connect(), record_of_workspace("small"))
    before = [{"role": "user", "content": "Count to two."}, {"role": "assistant", "content": "one, two"}]
    records = [{"instruction": "Count to three.", "input": None}, {"instruction": "And on.", "input": "from four"}]
    records = [{**row, "history": history} for row, history in zip(records, (None, before), strict=True)]
    columns = ["instruction", "input", "history"]
    split = {"columns": columns, "data": [[row[name] for name in columns] for row in records]}
    with served("small", workspace) as client:
        answers = client.predictions({"dataframe_records": records})
        assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
        by_column = {name: [row[name] for row in records] for name in columns}
        for body in ({"dataframe_split": split}, {"inputs": records}, {"inputs": by_column}):
            assert client.predictions(body) == answers

        def drawn(**params):
            return client.predictions({"dataframe_records": records, "params": {"max_new_tokens": 12, **params}})

        assert drawn() == drawn(temperature=0) == drawn(temperature=1.0, top_p=1e-9)  # each the likeliest token
        wild = {"temperature": 1.5, "top_p": 0.9, "max_new_tokens": 24}
        assert drawn(**wild, seed=1) == drawn(**wild, seed=1) != drawn(**wild, seed=2)
        longer = drawn(max_new_tokens=256)
        assert all(long.startswith(short) for long, short in zip(longer, drawn(), strict=True))
        hold(client, "instruction", "input", malformed_instructions(), {"dataframe_records": records})
