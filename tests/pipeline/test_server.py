"""`biasline serve` on a real store: started as a user starts it, while models are promoted, rolled back and lost."""

import json
import os
import signal
import sys
import time
from contextlib import contextmanager

import openai
import pytest
from typer.testing import CliRunner

from biasline.cli import app
from biasline.layout import TaskPlace
from biasline.registry.aliases import CANDIDATE, CHAMPION
from biasline.registry.promote import promote, rollback
from biasline.registry.sync import register
from biasline.serving.registered import aliased, read_package
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect, tracking_uri
from tests.conftest import LENIENT_GATES, run_other, run_stages
from tests.servers import free_port, running
from tests.serving.server.conftest import Client
from tests.serving.server.test_follower import until

ASK = {"instruction": "Count to three."}


@contextmanager
def served(folder, *options, **environment):
    """A client of a server that was started from the shell, and its process."""
    port = free_port()
    command = [sys.executable, "-c", "from biasline.cli import main; main()", "serve", "--port", str(port), *options]
    known = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri(), "BIASLINE_SERVE_POLL_S": "0.3", **environment}

    def answers():
        try:
            return Client(port).get("/ready")[0] == 200
        except OSError:
            return False

    with running(command, folder / "server.log", answers, env=known, cwd=folder) as server:
        yield Client(port, environment.get("BIASLINE_API_KEY", "")), server


def chat(client, model="small"):
    """The answer, and the version that gave it."""
    body = {"model": model, "messages": [{"role": "user", "content": ASK["instruction"]}]}
    status, headers, told = client.post("/v1/chat/completions", body)
    assert status == 200, told
    return told["choices"][0]["message"]["content"], headers["x-biasline-version"]


def test_champions_are_served_and_followed_without_a_restart(trained, workspace):
    task, place = trained
    client = connect()
    register(client, record_of_workspace("small"))
    lenient = task.model_copy(update={"gates": task.gates.model_copy(update=LENIENT_GATES)})
    promote(client, "small", lenient, "ann", "first")
    run_other(workspace, "classification")
    register(client, record_of_workspace("other"))
    with served(workspace, "--alias", "champion", "--alias", "candidate") as (server, process):
        alone = read_package(aliased(client, "small", CHAMPION)).predictor()([ASK])[0]
        assert chat(server) == (alone, "1")
        assert server.get("/ready")[2]["models"] == {
            "other@candidate": "1",
            "small@candidate": "1",
            "small@champion": "1",
        }
        wanted = read_package(aliased(client, "other", CANDIDATE)).predictor()([{"text": "sample 3 is 1"}])
        status, _, told = server.post("/v1/classify", {"model": "other@candidate", "input": ["sample 3 is 1"]})
        assert status == 200 and told["data"][0]["label"] == wanted[0]["label"]
        # Promoted and rolled back meanwhile.
        other = task.model_copy(
            update={"train": task.train.model_copy(update={"min_steps": 12, "learning_rate": 5e-2})}
        )
        run_stages(other, place)
        register(client, record_of_workspace("small"))
        promote(client, "small", lenient, "ann", "second")
        started = time.monotonic()
        until(lambda: server.get("/ready")[2]["models"]["small@champion"] == "2")
        assert time.monotonic() - started < 5
        newer = read_package(aliased(client, "small", CHAMPION)).predictor()([ASK])[0]
        assert chat(server) == (newer, "2")
        rollback(client, "small", "ann", "it swears")
        until(lambda: server.get("/ready")[2]["models"]["small@champion"] == "1")
        assert chat(server) == (alone, "1")
        # What a predict prints is what the server answers.
        url = f"http://127.0.0.1:{server.port}"
        for model, text in (("small", ASK["instruction"]), ("other", "sample 3 is 1")):
            asked = ["predict", model, text, "--json", "--alias", "champion" if model == "small" else "candidate"]
            (workspace / "params.yaml").write_text(json.dumps({"tasks": _tasks(workspace)}))
            one, two = (json.loads(CliRunner().invoke(app, [*asked, *more]).stdout) for more in ([], ["--url", url]))
            assert one == two or _near(one, two)
        refused = CliRunner().invoke(app, ["predict", "small", "x", "--alias", "previous", "--url", url])
        assert "no such model is served" in str(refused.exception)
        # The registry loses the store: the server goes on.
        (workspace / "mlflow.db").rename(workspace / "away.db")
        time.sleep(1)
        assert chat(server) == (alone, "1")
        (workspace / "away.db").rename(workspace / "mlflow.db")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)
    log = [json.loads(line) for line in (workspace / "server.log").read_text().splitlines() if line[0] == "{"]
    assert {line.get("route") for line in log} >= {"/v1/chat/completions", "/v1/classify"}
    assert not [line for line in log if line["level"] == "error"]
    assert ASK["instruction"] not in (workspace / "server.log").read_text()


def test_any_folder_of_a_machine_that_has_registry_and_bases_will_do(trained, workspace, tmp_path):
    client = connect()
    register(client, record_of_workspace("small"))
    alone = read_package(aliased(client, "small", CANDIDATE)).predictor()([ASK])[0]
    (tmp_path / "bases").mkdir()
    (workspace / "data/bases/tiny-bloom").rename(tmp_path / "bases/tiny-bloom")
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty", "--alias", "candidate", BIASLINE_BASES=str(tmp_path / "bases"), DVC_ROOT="") as (
        server,
        _,
    ):
        assert chat(server) == (alone, "1")
        assert server.get("/ready")[2]["problems"] == {}


def _tasks(workspace):
    """params.yaml's, and the task `other` as it was resolved."""
    tasks = json.loads((workspace / "params.yaml").read_text())["tasks"]
    resolved = json.loads((workspace / TaskPlace("other").resolved).read_text())
    return {**tasks, "other": {name: resolved[name] for name in ("kind", "base", "data")}}


def _near(one, two):
    return all(
        row["label"] == other["label"] and row["probability"] == pytest.approx(other["probability"], abs=1e-4)
        for row, other in zip(one, two, strict=True)
    )


def test_a_fleet_is_served_with_keys(store, fleet, tmp_path):
    client = connect()
    register(client, record_of_workspace("fleet"))
    made = CliRunner().invoke(app, ["api-key", "the shop", "--model", "fleet/one"])
    keys = tmp_path / "keys.yaml"
    keys.write_text(made.stdout)
    key = made.stderr.split()[-1]
    package = read_package(aliased(client, "fleet", CANDIDATE))
    question = "Where do I find tea?"
    alone = package.predictor()([{"instruction": question, "shop": "one"}])[0]
    with served(store, "fleet", "--alias", "candidate", "--keys", str(keys), BIASLINE_API_KEY="whole") as (whole, _):
        asked = openai.OpenAI(base_url=f"http://127.0.0.1:{whole.port}/v1", api_key=key, max_retries=0)
        given = asked.chat.completions.create(model="fleet/one", messages=[{"role": "user", "content": question}])
        assert given.choices[0].message.content == alone
        assert [one.id for one in asked.models.list()] == ["fleet/one"]
        with pytest.raises(openai.NotFoundError):
            asked.chat.completions.create(model="fleet/few", messages=[{"role": "user", "content": question}])
        assert len(whole.get("/v1/models")[2]["data"]) == 1 + len(package.tenants)
        rows = [{"instruction": question, "shop": name} for name in (*package.tenants.own, *package.tenants.shared)]
        status, _, told = whole.post("/invocations/fleet", {"dataframe_records": rows})
        assert (status, told["predictions"]) == (200, package.predictor()(rows))
