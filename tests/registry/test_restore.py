"""What a store has lost while its lists are whole: files, runs, models."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.registry.aliases import CANDIDATE, CHAMPION
from biasline.registry.promote import nominate, promote
from biasline.registry.sync import register, sync
from biasline.registry.verify import verify
from biasline.registry.why import as_markdown, why
from biasline.serving.registered import aliased, has_files, run_file
from biasline.tracking.publish import find_run, lost_files
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import LENIENT_GATES
from tests.registry.test_registry import another
from tests.tracking.test_relocate import enter_anew

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)


@pytest.fixture
def promoted(registered_small):
    client, record = registered_small
    promote(client, "small", LENIENT, "ann", "")
    return client, record


def purge(workspace, run):
    """As `mlflow gc` does it: the row is gone, and what hangs on it."""
    with closing(sqlite3.connect(workspace / "mlflow.db")) as store, store:
        for table in ("latest_metrics", "metrics", "params", "tags", "runs"):
            store.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run,))


@pytest.mark.slow
def test_files_that_are_gone_are_made_again(promoted, workspace):
    client, record = promoted
    shutil.rmtree(workspace / "mlartifacts")
    assert any(
        "its files cannot be had" in line and "biasline sync small" in line for line in verify(client, "small")[1]
    )
    assert not has_files(client, aliased(client, "small", CHAMPION)) and lost_files(client, record)
    told = sync(client, "small")
    assert (
        "1 versions registered anew" in told
        and f"the run of {record.fingerprint} had lost files: uploaded again" in told
    )
    assert verify(client, "small")[1] == []
    assert [int(aliased(client, "small", alias).version) for alias in (CHAMPION, CANDIDATE)] == [2, 2]
    assert not lost_files(client, record) and sync(client, "small") == []


def test_one_file_of_a_run_is_noticed_too(promoted, workspace):
    client, record = promoted
    next((workspace / "mlartifacts").rglob("card.md")).unlink()
    assert sync(client, "small") == [f"the run of {record.fingerprint} had lost files: uploaded again"]
    assert sync(client, "small") == []


def test_files_that_no_record_brings_back_are_named(promoted, workspace):
    client, record = promoted
    shutil.rmtree(workspace / "mlartifacts")
    shutil.rmtree(workspace / ".biasline/records")
    shutil.rmtree(workspace / "data/small/model")
    [told] = sync(client, "small")
    assert told.startswith(
        f"version 1 ({record.fingerprint}): its files are gone and no record of it is here → copy them"
    )
    assert f"{workspace / 'mlartifacts'}" in told
    assert int(aliased(client, "small", CHAMPION).version) == 1  # nothing is deleted that cannot be made again


@pytest.mark.slow
def test_a_copied_checkout_keeps_its_champion(promoted, workspace, tmp_path_factory, monkeypatch):
    """The other one may go; and nothing is written there."""
    folder = tmp_path_factory.mktemp("copies") / "ml moved é%20"
    shutil.copytree(workspace, folder)
    before = sorted(workspace.rglob("*"))
    enter_anew(folder, monkeypatch)
    client = connect()
    record = record_of_workspace("small")
    register(client, another(record, "b" * 16))
    promote(client, "small", LENIENT, "ann", "")
    assert sorted(workspace.rglob("*")) == before
    for path in workspace.iterdir():  # the base too
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert verify(client, "small")[1] == []
    assert not [line for line in sync(client, "small") if "lost" in line or "gone" in line]
    done = CliRunner().invoke(app, ["predict", "small", "Say yes."])
    assert done.exit_code == 0 and done.output.strip(), done.output


def test_a_purged_run_blocks_no_other(promoted, workspace, monkeypatch):
    client, record = promoted
    monkeypatch.setenv("DVC_EXP_NAME", "tame-yak")
    other = another(record, "c" * 16)
    (other.folder / "lineage.json").write_text(json.dumps(record.lineage | {"dvc.experiment": "tame-yak"}))
    register(client, other)
    monkeypatch.delenv("DVC_EXP_NAME")
    purge(workspace, aliased(client, "small", CHAMPION).run_id)
    assert nominate(client, "small", "tame-yak", "ann", "").tags["biasline.fingerprint"] == "c" * 16
    assert nominate(client, "small", "cccc", "ann", "").tags["biasline.fingerprint"] == "c" * 16
    assert promote(client, "small", LENIENT, "ann", "").promoted  # beside a champion without a run
    assert as_markdown(why(client, "small", "cccc"))


def test_why_of_a_purged_run_says_what_is_missing(promoted, workspace):
    client, record = promoted
    whole, run = why(client, "small"), aliased(client, "small", CHAMPION).run_id
    purge(workspace, run)
    told = why(client, "small")  # the record here has the rest
    assert told["missing"] == [f"its run {run}, which was purged from the store"]
    assert told["evaluation"] == whole["evaluation"] and told["data"] == whole["data"]
    kept = workspace / "kept"
    shutil.move(workspace / ".biasline/records", kept)
    told = why(client, "small")
    assert told["missing"][1:] == ["quality.json", "model/train.json", "evaluation/metrics.json"]
    assert told["model"] == whole["model"] and told["decisions"] == whole["decisions"]
    page = as_markdown(told)
    assert "**missing**" in page and "promoted by ann" in page and "NOT what was" not in page
    assert any(
        "its run was purged and no record of it is here" in line for line in sync_without_outs(client, workspace)
    )
    shutil.move(kept / "small", workspace / ".biasline/records/small")
    assert sync(client, "small") == [f"the run of {record.fingerprint} was purged: published anew"]
    assert find_run(client, "small", record.fingerprint) is not None
    assert why(client, "small")["missing"] == [] and sync(client, "small") == []


def sync_without_outs(client, workspace):
    (workspace / "data/small").rename(workspace / "away")
    try:
        (workspace / "data/small").mkdir()
        shutil.copy(workspace / "away/promotions.jsonl", workspace / "data/small")
        return sync(client, "small")
    finally:
        shutil.rmtree(workspace / "data/small")
        (workspace / "away").rename(workspace / "data/small")
        shutil.rmtree(workspace / ".biasline/records", ignore_errors=True)
        (workspace / ".biasline/records").mkdir(exist_ok=True)


def test_a_long_card_is_shortened_for_every_store_and_kept_whole_beside_it(trained):
    client, record = connect(), record_of_workspace("small")
    card = trained[1].card
    card.write_text("# Card\n" + "".join(f"| label {number} | 0.5 |\n" for number in range(2000)))
    record.take(trained[1])
    version = register(client, record)
    assert len(version.description) <= 5000 and "evaluation/card.md" in version.description.splitlines()[-1]
    assert version.description.splitlines()[-3].endswith("| 0.5 |")  # no line is cut
    note = client.get_run(version.run_id).data.tags["mlflow.note.content"]
    assert len(note) <= 8000 and "evaluation/card.md" in note.splitlines()[-1]
    kept = run_file(client, version, trained[1].card, trained[1].folder)
    assert kept.read_text() == card.read_text()


@pytest.mark.slow
def test_a_refused_version_leaves_no_package(trained, monkeypatch):
    client, record = connect(), record_of_workspace("small")

    def refuse(*_, **__):
        raise MlflowException("(psycopg2.errors.StringDataRightTruncation) value too long")

    def packages():
        experiment = client.get_experiment_by_name("small").experiment_id
        return client.search_logged_models([experiment])

    with monkeypatch.context() as patch:
        patch.setattr(client, "create_model_version", refuse)
        for _ in range(2):
            with pytest.raises(MlflowException, match="value too long"):
                register(client, record)
            assert packages() == []
    assert int(register(client, record).version) == 1 and len(packages()) == 1
    # The answer is lost, but the store has it: the package stays.
    create = client.create_model_version
    monkeypatch.setattr(client, "create_model_version", lambda *args, **told: (create(*args, **told), refuse()))
    other = another(record, "d" * 16)
    with pytest.raises(MlflowException, match="value too long"):
        register(client, other)
    assert len(packages()) == 2
    assert int(register(client, other).version) == 2 and len(packages()) == 2


@pytest.mark.parametrize(
    "command",
    [
        "predict small hi",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("why small", "merge small out", "verify small")),
    ],
)
def test_a_deleted_model_comes_back_by_sync(promoted, command):
    client, record = promoted
    client.delete_registered_model("biasline-small")
    done = CliRunner().invoke(app, command.split())
    told = str(done.exception if isinstance(done.exception, BiaslineError) else done.output)
    assert "biasline sync small" in told and record.fingerprint in told and "promote" not in told
    with pytest.raises(BiaslineError, match="no candidate to promote.*biasline sync small"):
        promote(client, "small", LENIENT, "ann", "", champion_is_lost=True)
    assert "1 versions registered anew" in sync(client, "small")
    assert verify(client, "small")[1] == []
