"""Local stores that are not where they were made."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from biasline.tracking.store import connect, experiment_id
from tests.conftest import enter, lay_workspace


@pytest.fixture
def made(tmp_path, monkeypatch, empty_store):
    """A project with one run and its file: its folder and the run's id."""
    folder = tmp_path / "ml"
    folder.mkdir()
    lay_workspace(folder)
    shutil.copy(empty_store, folder)
    enter(folder, monkeypatch)
    client = connect()
    run = client.create_run(experiment_id(client, "small"))
    client.log_text(run.info.run_id, "first", "note.txt")
    return folder, run.info.run_id


def enter_anew(folder, monkeypatch):
    """Enter a folder as a new process does: this one's MLflow remembers where each run's files were."""
    from mlflow.tracking._tracking_service import utils

    enter(folder, monkeypatch)
    utils._artifact_repos_cache.clear()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "mlartifacts").rglob("*") if path.is_file())


def text(client, run, tmp_path):
    (tmp_path / "scratch").mkdir(exist_ok=True)
    return Path(client.download_artifacts(run, "note.txt", str(tmp_path / "scratch"))).read_text()


@pytest.mark.parametrize("name", ["ml2", "ml moved é", "a%20b"])
def test_a_copy_reads_and_writes_below_itself(made, tmp_path, monkeypatch, capsys, name):
    folder, run = made
    other = tmp_path / name
    shutil.copytree(folder, other)
    before = files(folder)
    enter_anew(other, monkeypatch)
    client = connect()
    assert f"note: the store was made in {folder}: its artifacts are read and written below {other}" in (
        capsys.readouterr().err
    )
    client.log_text(run, "again", "note.txt")
    new = client.create_run(experiment_id(client, "small"))
    client.log_text(new.info.run_id, "third", "more.txt")
    assert files(folder) == before and len(files(other)) == len(before) + 1
    assert next((folder / "mlartifacts").rglob("note.txt")).read_text() == "first"
    shutil.rmtree(folder)
    client = connect()
    assert capsys.readouterr().err == ""  # said once
    assert text(client, run, tmp_path) == "again"


def test_a_renamed_checkout_finds_its_files(made, tmp_path, monkeypatch):
    folder, run = made
    other = folder.rename(tmp_path / "ml moved é")
    enter_anew(other, monkeypatch)
    assert text(connect(), run, tmp_path) == "first"
    with closing(sqlite3.connect(other / "mlflow.db")) as store:
        dump = "\n".join(store.iterdump())
    assert f"file://{tmp_path}/ml/" not in dump


def test_a_copy_without_its_files_writes_below_itself_and_says_what_to_bring(made, tmp_path, monkeypatch, capsys):
    folder, run = made
    other = tmp_path / "ml2"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("mlartifacts"))
    enter_anew(other, monkeypatch)
    client = connect()
    assert f"holds none: copy {folder / 'mlartifacts'} here, or `biasline sync`" in capsys.readouterr().err
    client.log_text(run, "mine", "note.txt")
    assert text(client, run, tmp_path) == "mine"
    assert next((folder / "mlartifacts").rglob("note.txt")).read_text() == "first"


def test_a_place_that_someone_chose_stays(made, tmp_path, monkeypatch, capsys):
    """A disk beside all projects; and a task whose name begins as another's."""
    disk = tmp_path / "disk/mlartifacts/big"
    disk.mkdir(parents=True)
    client = connect()
    client.create_experiment("big", artifact_location=disk.as_uri())
    client.create_experiment("small-2", artifact_location=(tmp_path / "ml/mlartifacts/small-2").as_uri())
    folder, _ = made
    other = folder.rename(tmp_path / "ml2")
    enter_anew(other, monkeypatch)
    client = connect()
    assert client.get_experiment_by_name("big").artifact_location == disk.as_uri()
    assert client.get_experiment_by_name("small-2").artifact_location == (other / "mlartifacts/small-2").as_uri()


def test_a_database_beside_several_checkouts_stays_with_the_one_that_has_its_files(tmp_path, monkeypatch):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        lay_workspace(folder)
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    enter_anew(one, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared)
    client = connect()
    run = client.create_run(experiment_id(client, "small"))
    client.log_text(run.info.run_id, "first", "note.txt")
    enter_anew(other, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared)
    assert connect().get_run(run.info.run_id).info.artifact_uri.startswith((one / "mlartifacts").as_uri())
    assert text(connect(), run.info.run_id, tmp_path) == "first"


def test_the_same_folder_under_another_name_is_no_move(made, tmp_path, monkeypatch, capsys):
    """As a folder that is mounted twice; here the artifacts alone lie behind a link."""
    folder, run = made
    (folder / "mlartifacts").rename(tmp_path / "kept")
    (folder / "mlartifacts").symlink_to(tmp_path / "kept")
    other = tmp_path / "ml2"
    shutil.copytree(folder, other, symlinks=True)
    enter_anew(other, monkeypatch)
    assert connect().get_run(run).info.artifact_uri.startswith(folder.as_uri())
    assert os.path.samefile(folder / "mlartifacts", other / "mlartifacts") and capsys.readouterr().err == ""
