"""A server of packages that no registry holds: what it is told of aliases is the test's to say."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import polars as pl
import pytest
import uvicorn

from biasline.bases.load import best_device
from biasline.evaluation.scoring import score_likelihood
from biasline.kinds.answering import find_answering
from biasline.serving.server.app import make_app
from biasline.serving.server.keys import Keys
from biasline.serving.server.registry import Version
from biasline.serving.server.service import Service
from biasline.serving.server.settings import ServerSettings
from biasline.tokens.answers import answer_columns
from tests.conftest import lay_workspace
from tests.serving.packages import TEXTS, fleet, four_packages

TENANTS = ["one", "Two/2", "drei 🙂", "few"]


def predictions_of(package):
    """What an evaluation of a package would leave of two rows (of a fleet, of two of each tenant)."""
    task, predictor = package.task, package.predictor()
    answering = find_answering(task.kind)
    texts = [text for text in TEXTS for _ in TENANTS] if package.tenants is not None else TEXTS
    first = answering.learning.columns.given[0]
    rows = pl.DataFrame({"row": range(1, len(texts) + 1), first: texts})
    if package.tenants is not None:
        rows = rows.with_columns(pl.Series(task.tenants.column, TENANTS * len(TEXTS)))
    answers = predictor(rows.to_dicts())
    if answering.learning.headed:
        given = pl.DataFrame(
            {"tuned": [one["label"] for one in answers], "probability": [one["probability"] for one in answers]}
        )
        return rows.with_columns(label=pl.lit("?")).hstack(given)
    rows = rows.with_columns(input=pl.lit(""), output=pl.lit("a house"), history=pl.lit(""), tuned=pl.Series(answers))
    columns = answer_columns(predictor.dialogue_encoder, rows)
    with predictor.asked(predictor.owners(rows.to_dicts())):
        nll, *_ = score_likelihood(predictor.model, columns, *predictor.batches)
    return rows.with_columns(tuned_nll=pl.Series(nll))


class FakeRegistry:
    """Versions by number, aliases, and whether it answers.

    Attributes:
        held: version → (package, predictions).
        aliases: (task, alias) → version.
    """

    def __init__(self):
        self.held, self.aliases, self.away = {}, {}, False

    def register(self, task, package, predictions, number="1", alias="champion"):
        version = Version(task, number, f"{abs(hash((task, number))):016x}"[:16])
        self.held[version] = package, predictions
        self.aliases[task, alias] = version
        return version

    def versions(self, tasks, aliases):
        if self.away:
            raise ConnectionError("no route to it")
        return {
            place: version
            for place, version in self.aliases.items()
            if (not tasks or place[0] in tasks) and place[1] in aliases
        }

    def package(self, version, scratch):
        return self.held[version][0], f"{version.task}-{version.number}".encode().hex().ljust(64, "0")

    def predictions(self, version):
        return self.held[version][1]


@pytest.fixture(scope="session")
def held(tmp_path_factory):
    """name → (package, predictions): four tasks and a fleet."""
    folder = tmp_path_factory.mktemp("served")
    lay_workspace(folder)
    packages = {**four_packages(folder), "shops": fleet(folder, TENANTS)}
    assert best_device().type in ("cpu", "cuda")
    return {name: (package, predictions_of(package)) for name, package in packages.items()}


@pytest.fixture
def registry(held):
    found = FakeRegistry()
    for name, (package, predictions) in held.items():
        found.register(name, package, predictions)
    return found


@pytest.fixture
def two(held):
    """A registry where two packages are versions 1 and 2 of one task; and what each answers."""
    registry = FakeRegistry()
    for number, name in (("2", "rhymes"), ("1", "answers")):
        registry.register("answers", *held[name], number)
    return registry, {"1": held["answers"][1]["tuned"][0], "2": held["rhymes"][1]["tuned"][0]}


@contextmanager
def serving(registry, keys=(), wait=True, **settings):
    """A server under way, and its port."""
    settings = ServerSettings(**{"poll_s": 0.05, "threads": 1, "drain_s": 5.0, **settings})
    service = Service(settings, Keys(keys), registry)
    server = uvicorn.Server(uvicorn.Config(make_app(service), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        while wait and not service.follower.loaded:
            time.sleep(0.01)
        yield service, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Client:
    """Plain HTTP."""

    def __init__(self, port, key=""):
        self.port, self.key = port, key

    def __call__(self, method, path, body=None, **headers):
        """Status, headers and body, which is read where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
        told = json.loads(content) if content[:1] in ("{", "[") else content
        return response.status, dict(response.getheaders()), told

    def post(self, path, body, **headers):
        return self("POST", path, body, **headers)

    def get(self, path, **headers):
        return self("GET", path, **headers)


@pytest.fixture(scope="module")
def running(held):
    """A server of all of them; the registry, the service and a client."""
    registry = FakeRegistry()
    for name, (package, predictions) in held.items():
        registry.register(name, package, predictions)
    with serving(registry, allow_base=True) as (service, port):
        yield registry, service, Client(port)
