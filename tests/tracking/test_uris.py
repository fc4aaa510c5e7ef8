"""The store's address, from wherever a command is run and whatever the project's path is made of."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from biasline.tracking.uris import database, sqlite_uri, tracking_uri
from tests.conftest import enter, lay_workspace

ODD = ["a%20b", "a?b", "a#b", "ml moved é", "100%"]


@pytest.fixture
def project_folder(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("tasks: {}\n")
    (tmp_path / "docs").mkdir()
    enter(tmp_path / "docs", monkeypatch)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "sqlite:///{home}/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///{home}/mlflow.db"),
        ("sqlite:///./runs/mlflow.db?timeout=9", "sqlite:///{home}/runs/mlflow.db?timeout=9"),
        ("sqlite+pysqlite:///mlflow.db", "sqlite:///{home}/mlflow.db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("mlruns", "file://{home}/mlruns"),
        ("file:./ml%20runs", "file://{home}/ml%20runs"),
        ("file:///srv/mlruns", "file:///srv/mlruns"),
        ("/srv/mlruns", "/srv/mlruns"),
        ("http://ann:secret@server:5000", "http://ann:secret@server:5000"),
        ("postgresql+psycopg2://mlflow@server/mlflow", "postgresql+psycopg2://mlflow@server/mlflow"),
        ("databricks", "databricks"),
    ],
)
def test_relative_paths_begin_at_the_home(project_folder, monkeypatch, given, expected):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri() == expected.format(home=project_folder)


def test_a_temporary_checkout_has_the_main_ones_store(project_folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("DVC_ROOT", "/srv/main")  # as `dvc exp run --temp` has it
    assert tracking_uri() == "sqlite:////srv/main/mlflow.db"


@pytest.mark.parametrize("name", ODD)
def test_an_sqlite_uri_names_its_file_and_no_other(tmp_path, monkeypatch, name):
    from sqlalchemy import create_engine, text

    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(folder / "mlflow.db"))
    assert database() == folder / "mlflow.db"
    with create_engine(tracking_uri()).begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.db")] == [f"{name}/mlflow.db"]


def test_make_ui_opens_the_same_store(root, tmp_path):
    """What the Makefile has Python print, in a project whose path means something to make and to the shell."""
    folder = tmp_path / "a b$c%20d"
    folder.mkdir()
    lay_workspace(folder)
    for name in ("pyproject.toml", "requirements.lock"):
        (folder / name).touch()
    told = subprocess.run(
        ["make", "-n", "-f", str(root / "Makefile"), "ui"], cwd=folder, capture_output=True, text=True, check=True
    )
    printed = re.search(r'--backend-store-uri "\$\((.+)\)"', told.stdout)[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(printed, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sqlite_uri(folder / "mlflow.db")


STORED = """
import sys
from biasline.tracking.store import connect, experiment_id
client = connect()
run = client.create_run(experiment_id(client, "small"))
client.log_text(run.info.run_id, "kept", "note.txt")
print(client.list_artifacts(run.info.run_id)[0].path)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a%20b", "a?b#c"])
def test_a_store_works_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    lay_workspace(folder)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    for cwd in (folder, folder / "data"):
        done = subprocess.run(
            [sys.executable, "-c", STORED], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout == "note.txt\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(list((folder / "mlartifacts" / "small").rglob("note.txt"))) == 2
