"""What examples/serve has: files that are of one piece, and the server as a deployment of Ray Serve."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from ruamel.yaml import YAML

from biasline.layout import home
from biasline.registry.promote import promote, rollback
from biasline.registry.sync import register
from biasline.serving.registered import aliased, read_package
from biasline.serving.server.settings import read_settings
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from biasline.tracking.uris import tracking_uri
from tests.conftest import LENIENT_GATES, run_stages
from tests.servers import free_port, running
from tests.serving.server.conftest import Client
from tests.serving.server.test_follower import until

ASK = {"instruction": "Count to three."}


@pytest.fixture
def examples(root):
    return root / "examples/serve"


def test_settings_are_settings_of_the_server(examples):
    settings = read_settings(examples / "settings.yaml")
    assert not settings.is_local and settings.keys


def test_the_services_of_compose_fit_each_other_and_the_image(examples, root):
    from mlflow.cli import server

    services = YAML(typ="safe").load((examples / "compose.yaml").read_text())["services"]
    port = read_settings(examples / "settings.yaml").port
    assert services["serve"]["ports"] == [f"{port}:{port}"]
    known = {option for param in server.params for option in param.opts}
    given = dict(part.split("=", 1) for part in services["mlflow"]["command"][2:])
    assert services["mlflow"]["command"][:2] == ["mlflow", "server"] and set(given) <= known
    assert services["serve"]["environment"]["MLFLOW_TRACKING_URI"] == f"http://mlflow:{given['--port']}"
    assert f"mlflow:{given['--port']}" in given["--allowed-hosts"].split(",")
    image = (examples / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in image.splitlines() if line.startswith("COPY ") and "--from" not in line]
    assert [name for names in copied for name in names if not (root / name).exists()] == []
    command = json.loads(next(line for line in image.splitlines() if line.startswith("CMD ")).removeprefix("CMD "))
    mounted = [part.split(":")[1] for part in services["serve"]["volumes"]]
    assert command[:3] == ["biasline", "serve", "--settings"] and command[3] in mounted
    assert read_settings(examples / "settings.yaml").keys in mounted
    [bases] = [part.split(":")[-2] for part in services["serve"]["volumes"] if "BASES" in part]
    assert f"BIASLINE_BASES={bases}" in image


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(examples, tmp_path):
    text = (examples / "biasline.service").read_text()
    assert "/opt/biasline/.venv/bin/biasline" in text
    unit = tmp_path / "biasline.service"
    unit.write_text(text.replace("/opt/biasline/.venv/bin/biasline", sys.executable))
    found = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "biasline.service" not in found.stderr and found.returncode == 0, found.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="no ray: pip install '.[ray]'")
def test_ray_serves_the_same_app_and_each_replica_follows_the_registry(trained, workspace, root):
    task, place = trained
    client = connect()
    register(client, record_of_workspace("small"))
    lenient = task.model_copy(update={"gates": task.gates.model_copy(update=LENIENT_GATES)})
    promote(client, "small", lenient, "ann", "first")
    port = free_port()
    script = (
        "import ray\nfrom ray import serve\nfrom examples.serve.ray_app import Biasline\n"
        "ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)\n"
        f"serve.start(http_options={{'port': {port}}})\n"
        "two = Biasline.options(num_replicas=2, autoscaling_config=None, ray_actor_options={'num_cpus': 1})\n"
        "serve.run(two.bind(), blocking=True)\n"
    )
    known = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "BIASLINE_SERVE_POLL_S": "0.3",
        "PYTHONPATH": f"{root}:{root / 'src'}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    body = {"model": "small", "messages": [{"role": "user", "content": ASK["instruction"]}]}
    server = Client(port)

    def answers():
        try:
            return server.get("/ready")[0] == 200
        except OSError:
            return False

    def versions():
        told = [server.post("/v1/chat/completions", body) for _ in range(12)]
        assert {status for status, _, _ in told} == {200}
        return {(headers["x-biasline-version"], one["choices"][0]["message"]["content"]) for _, headers, one in told}

    with running([sys.executable, "-c", script], workspace / "ray.log", answers, env=known, cwd=home()):
        alone = read_package(aliased(client, "small", "champion")).predictor()([ASK])[0]
        assert versions() == {("1", alone)}
        other = task.model_copy(update={"train": task.train.model_copy(update={"learning_rate": 5e-2})})
        run_stages(other, place)
        register(client, record_of_workspace("small"))
        promote(client, "small", lenient, "ann", "second")
        newer = read_package(aliased(client, "small", "champion")).predictor()([ASK])[0]
        until(lambda: versions() == {("2", newer)})
        rollback(client, "small", "ann", "it swears")
        until(lambda: versions() == {("1", alone)})
        assert server.post("/v1/chat/completions", {**body, "model": "smell"})[0] == 404
