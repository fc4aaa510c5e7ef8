"""The store of a team: `mlflow server` on PostgreSQL with artifacts through its proxy. And many trainings at once."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry import ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION
from biasline.registry.promote import promote
from biasline.registry.sync import register, sync
from biasline.registry.verify import verify
from biasline.serving.registered import aliased
from biasline.tracking.publish import find_run
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect, upsert
from tests.conftest import LENIENT_GATES, ROOT
from tests.registry.test_registry import another
from tests.servers import free_port, running, tracking_server

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)
CROWD, STEPS = 6, 200
OWNER = "mlflow"


def program(name: str) -> str:
    """A program of PostgreSQL's; Debian keeps the server's apart from PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        pytest.skip(f"no {name}: PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return path


def ordinary_user() -> dict[str, str]:
    """Whom to start PostgreSQL as, for `subprocess`: it refuses to run as root."""
    import pwd

    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            group = pwd.getpwnam(name).pw_gid
        except KeyError:
            continue
        return {"user": name, "group": group, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@pytest.fixture(scope="module")
def new_database() -> Iterator[Callable[[str], str]]:
    """Makes an empty database in a cluster of this module's own; gives its URI."""
    psycopg2 = pytest.importorskip("psycopg2", reason="no psycopg2: pip install 'biasline[postgres]'")
    initdb, postgres, user = program("initdb"), program("postgres"), ordinary_user()
    # Not below pytest's folders: nobody but their owner may enter those, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user["user"], user["group"])
        data, port = folder / "data", free_port()
        # Trust, since it listens on loopback only and dies with the tests.
        command = [initdb, "-D", data, "-U", OWNER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **user)
        assert made.returncode == 0, made.stderr

        def session(database: str):
            return psycopg2.connect(host="127.0.0.1", port=port, user=OWNER, dbname=database)

        def answers() -> bool:
            try:
                session("postgres").close()
            except psycopg2.OperationalError:
                return False
            return True

        def create(database: str) -> str:
            connection = session("postgres")
            connection.autocommit = True  # CREATE DATABASE refuses to be part of a transaction
            connection.cursor().execute(f"CREATE DATABASE {database}")
            connection.close()
            return f"postgresql+psycopg2://{OWNER}@127.0.0.1:{port}/{database}"

        command = [postgres, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
        with running(command, folder / "postgres.log", answers, cwd=folder, **user):
            yield create


@contextmanager
def server_on(database: str, artifacts: Path) -> Iterator[str]:
    """The address of an `mlflow server` on a database, as docs/tracking.md starts one."""
    artifacts.mkdir()
    options = ("--artifacts-destination", str(artifacts), "--serve-artifacts")
    with tracking_server(artifacts.parent, database, *options) as (address, _):
        yield address


@pytest.fixture(scope="module")
def server(new_database, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A server on a database of its own: its address, and the folder where it keeps artifacts."""
    artifacts = tmp_path_factory.mktemp("server") / "artifacts"
    with server_on(new_database("team"), artifacts) as address:
        yield address, artifacts


def answers_elsewhere(uri: str, folder: Path) -> list[str]:
    """What the champion answers in a fresh process that knows the server's address alone."""
    script = "import json, mlflow; model = mlflow.pyfunc.load_model('models:/biasline-small@champion'); "
    script += "print(json.dumps(list(model.predict([{'instruction': 'Say yes.'}]))))"
    folder.mkdir()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_server_on_postgres_gets_all_that_a_local_store_gets(server, new_database, trained, tmp_path, monkeypatch):
    """Publish, register, promote, load; then the server starts anew with an empty database."""
    address, kept = server
    (tmp_path / "mlflow.db").unlink()  # none is to be made here
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client, record = connect(), record_of_workspace("small")
    version = register(client, record)
    assert promote(client, "small", LENIENT, "ann", "because").promoted

    run = client.get_run(version.run_id)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    place = trained[1]
    back = Path(client.download_artifacts(run.info.run_id, "model/delta.safetensors", dst_path=str(tmp_path)))
    assert back.read_bytes() == place.delta.read_bytes()
    assert len(list(kept.rglob("history.csv"))) == 1
    assert not [name for name in ("mlflow.db", "mlartifacts", "mlruns") if (tmp_path / name).exists()]
    assert len(answers_elsewhere(address, tmp_path / "elsewhere")) == 1

    with server_on(new_database("emptied"), tmp_path / "emptied") as anew:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", anew)
        client = connect()
        assert find_run(client, "small", record.fingerprint) is None
        assert sync(client, "small") == ["1 versions registered anew"]
        assert sync(client, "small") == []
        again = find_run(client, "small", record.fingerprint)
        assert again.info.run_id != run.info.run_id
        assert again.data.params == run.data.params
        for alias in (CANDIDATE, CHAMPION):
            assert aliased(client, "small", alias).run_id == again.info.run_id


# Importing takes each process its own time; what is raced for comes after the line that lets them go.
TRAINING = f"""
import sys, time
import mlflow
from biasline.layout import TaskPlace
from biasline.tracking.live import LiveRun, ended_honestly
from biasline.tracking.record import Record

print("ready", flush=True)
sys.stdin.readline()
record = Record("crowd", sys.argv[1])
record.begin(TaskPlace("crowd"))
live = LiveRun(record)
with ended_honestly(live):
    for step in range(1, {STEPS} + 1):
        live.log(step, {{"loss": 1 / step}})
        if step % 20 == 0:
            live.flush()
        time.sleep(0.01)
"""


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.slow
def test_trainings_that_log_at_once_lose_and_double_nothing(store, workspace, request, monkeypatch):
    """On one machine to a fresh SQLite; to the server from as many machines, which have no file lock in common."""
    place = TaskPlace("crowd")
    place.folder.mkdir()
    place.resolved.write_text(Task(base="data/bases/tiny-bloom.json", data="rows.jsonl").model_dump_json())
    if store == "postgres":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server")[0])
    names = [f"{number:016x}" for number in range(CROWD)]
    homes = {name: workspace / f"home-{name}" if store == "postgres" else workspace for name in names}
    trainings = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, name],
            env={**os.environ, "DVC_ROOT": str(homes[name])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    try:
        for training in trainings:
            assert training.stdout.readline() == "ready\n", training.stderr.read()
        for training in trainings:
            training.stdin.write("\n")
            training.stdin.flush()
        for training in trainings:
            _, told = training.communicate(timeout=600)
            assert (training.returncode, told) == (0, "")
    finally:
        for training in trainings:
            training.kill()
            training.wait()

    client = connect()
    [experiment] = [found for found in client.search_experiments() if found.name == "crowd"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["biasline.fingerprint"] for run in runs) == names
    for run in runs:
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(run.info.run_id, "train.loss")
        assert sorted((point.step, point.value) for point in points) == [(n, 1 / n) for n in range(1, STEPS + 1)]


@pytest.mark.slow
def test_two_checkouts_that_decide_at_once_make_one_history(server, trained, workspace, monkeypatch):
    """Fifty processes, half of them in another checkout, on one server: neither knows the other's ledger."""
    address, _ = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client, record = connect(), record_of_workspace("small")
    with suppress(MlflowException):
        client.delete_registered_model("biasline-small")  # of the test before
    monkeypatch.setattr("biasline.registry.versions.check_package", lambda record, uri: None)
    for one in (record, another(record, "b" * 16)):
        register(client, one)
    homes = {name: workspace / name for name in ("ours", "theirs")}
    crowds = []
    for home in homes.values():
        home.mkdir()
        command = [sys.executable, ROOT / "tests/registry/decisions.py", "crowd", "25", record.fingerprint, "b" * 16]
        environment = {**os.environ, "DVC_ROOT": str(home)}
        crowds.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    for crowd in crowds:
        told, _ = crowd.communicate(timeout=600)
        codes = json.loads(told.splitlines()[-1])
        assert crowd.returncode == 0 and len(codes) == 25 and set(codes) <= {0, 1}, told
    ledgers = {name: home / "data/small/promotions.jsonl" for name, home in homes.items()}
    moves = {name: [move["id"] for move in ledger.moves(path)] for name, path in ledgers.items()}
    [winner] = [name for name, made in moves.items() if made]
    settled = {
        key.split(".")[-1]
        for key, value in client.get_registered_model("biasline-small").tags.items()
        if key.startswith("champion.") and value.startswith("settled")
    }
    assert settled == set(moves[winner])
    champion = ledger.champions(ledgers[winner])[-1]["fingerprint"]
    assert aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == champion
    monkeypatch.setenv("DVC_ROOT", str(homes[winner]))
    assert verify(client, "small")[1] == []
    [loser] = set(homes) - {winner}
    monkeypatch.setenv("DVC_ROOT", str(homes[loser]))
    with pytest.raises(BiaslineError, match="another checkout moved the champion .* → `git pull`"):
        promote(client, "small", LENIENT, "ann", "")
    ledgers[loser].write_bytes(ledgers[winner].read_bytes())
    decision = promote(client, "small", LENIENT, "ann", "after the pull")
    assert decision.promoted


@pytest.mark.slow
def test_the_same_tag_and_alias_are_set_by_many_at_once(server, monkeypatch):
    """PostgreSQL refuses the second of two rows with one key, and MLflow looks before it inserts."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[0])
    client = connect()
    run = client.create_run("0").info
    client.create_registered_model("crowded")
    client.create_model_version("crowded", source=f"{run.artifact_uri}/model", run_id=run.run_id)

    def set_all(number: int) -> None:
        # Names and not values are what they share: every round is a first insertion for all of them.
        for number_of_tag in range(10):
            upsert(client.set_model_version_tag, "crowded", "1", f"tag{number_of_tag}", str(number))
            upsert(client.set_registered_model_tag, "crowded", f"tag{number_of_tag}", str(number))
            upsert(client.set_registered_model_alias, "crowded", f"alias{number_of_tag}", "1")

    with ThreadPoolExecutor(8) as crowd:
        list(crowd.map(set_all, range(8)))
    assert len(client.get_model_version("crowded", "1").tags) == 10
    model = client.get_registered_model("crowded")
    assert len(model.tags) == len(model.aliases) == 10


@pytest.mark.slow
def test_texts_of_any_length_come_to_a_server_on_postgres(new_database, trained, tmp_path, monkeypatch):
    """A card with 300 labels, a reason and a name of thousands of characters; and what sync makes again there."""
    with server_on(new_database("texts"), tmp_path / "artifacts") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        client, place = connect(), trained[1]
        place.card.write_text("# Card\0\n" + "".join(f"| label {number} | 0.5 |\n" for number in range(2000)))
        version = register(client, record_of_workspace("small"))
        assert len(version.description) <= 5000 and len(client.search_logged_models([the_experiment(client)])) == 1
        assert promote(client, "small", LENIENT, "ann " * 5000, "because " * 5000).promoted
        shutil.rmtree(tmp_path / "artifacts" / the_experiment(client))
        assert "1 versions registered anew" in sync(client, "small")
        assert verify(client, "small")[1] == [] and sync(client, "small") == []


def the_experiment(client) -> str:
    return client.get_experiment_by_name("small").experiment_id
