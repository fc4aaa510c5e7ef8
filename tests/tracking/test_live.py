"""A run while it trains: what the store misses comes from the record, and no run is left as running."""

import errno
import subprocess
import sys

import pytest

from biasline.errors import BiaslineError
from biasline.tracking.live import LiveRun, ended_honestly
from biasline.tracking.meter import Meter
from biasline.tracking.publish import end_orphans, find_run, publish
from biasline.tracking.record import Record, record_of_workspace
from biasline.tracking.store import connect


@pytest.fixture
def record(trained):
    found = record_of_workspace("small")
    assert found is not None
    return found


def history(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_a_store_that_goes_away_in_mid_training_misses_nothing_in_the_end(record, monkeypatch, capsys):
    """What history.csv has and what only the live run measured, each point once."""
    monkeypatch.setattr("biasline.tracking.live._FLUSH_EVERY_S", 0.0)
    rows = "step,loss,valid_loss\n" + "".join(f"{step},{step}.5,\n" for step in range(1, 7))
    record.file(record_place(record).history).write_text(rows)
    live = LiveRun(record)
    client = live._client
    with monkeypatch.context() as patch, ended_honestly(live):
        for step in range(1, 7):
            if step == 4:
                patch.setattr("mlflow.MlflowClient.log_batch", broken)
            live.log(step, {"loss": step + 0.5, "tokens_per_second": 100.0 * step})
    assert "warning: not tracked live: gone" in capsys.readouterr().err
    run_id = find_run(client, "small", record.fingerprint).info.run_id
    assert [step for step, _ in history(client, run_id, "train.loss")] == [1, 2, 3]
    publish(client, record)
    assert history(client, run_id, "train.loss") == [(step, step + 0.5) for step in range(1, 7)]
    assert history(client, run_id, "train.tokens_per_second") == [(step, 100.0 * step) for step in range(1, 7)]
    assert client.get_run(run_id).info.status == "FINISHED"


def record_place(record):
    from biasline.layout import TaskPlace

    return TaskPlace(record.task)


def broken(*_, **__):
    raise ConnectionError("gone")


@pytest.mark.slow
def test_a_run_whose_process_was_killed_ends_as_killed_at_the_next_start(workspace, trained):
    _, place = trained
    record = Record("small", "f" * 16)
    record.begin(place)
    script = (
        "import os, signal\n"
        "from biasline.tracking.live import LiveRun\n"
        "from biasline.tracking.record import Record\n"
        f"LiveRun(Record('small', {record.fingerprint!r})).log(1, {{'loss': 1.0}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=workspace, check=False)
    client = connect()
    assert find_run(client, "small", record.fingerprint).info.status == "RUNNING"

    other = record_of_workspace("small")
    live = LiveRun(other)
    assert find_run(client, "small", record.fingerprint).info.status == "KILLED"
    # A run whose process lives is left alone.
    assert end_orphans(client, "small") == 0
    assert find_run(client, "small", other.fingerprint).info.status == "RUNNING"
    live.end("FINISHED")
    assert find_run(client, "small", other.fingerprint).info.status == "FINISHED"


def test_a_run_of_another_machine_is_left_running(record):
    client = connect()
    publish(client, record)
    experiment = client.get_experiment_by_name("small").experiment_id
    # Of the very model that was trained here too.
    elsewhere = client.create_run(
        experiment, tags={"biasline.fingerprint": record.fingerprint, "biasline.home": "another"}
    )
    client.update_run(elsewhere.info.run_id, status="RUNNING")
    assert end_orphans(client, "small") == 0
    assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING"


def test_two_processes_cannot_train_one_model(record, monkeypatch):
    monkeypatch.setattr("biasline.tracking.live._PATIENCE_S", 0.1)
    live = LiveRun(record)
    with pytest.raises(BiaslineError, match="another process is training this very model"):
        LiveRun(record)
    live.end("FINISHED")
    LiveRun(record).end("FINISHED")


def test_a_training_that_is_broken_off_takes_nothing_from_the_one_before(record):
    """Neither its points, nor, once it is synced, that it was finished."""
    client = connect()
    live = LiveRun(record)
    live.log(4, {"loss": 1.0})
    live.end("FINISHED")
    run_id = publish(client, record)
    again = LiveRun(record)
    again.log(1, {"loss": 9.0})
    again.end("KILLED")
    assert [point.step for point in record.points] == [4]
    assert client.get_run(run_id).info.status == "KILLED"
    assert publish(client, record) == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert history(client, run_id, "train.loss") == [(4, 1.0)]


def test_what_is_published_twice_has_each_value_once(record):
    client = connect()
    live, meter = LiveRun(record), Meter()
    live.log(4, {"loss": 1.0, **meter.read(100)})
    live.end("FINISHED")
    record.observe(**meter.observed())
    run_id = publish(client, record)
    record.observe(**{"evaluate.seconds": 1.0})
    publish(client, record)
    metrics = client.get_run(run_id).data.metrics
    assert {name: len(history(client, run_id, name)) for name in metrics} == dict.fromkeys(metrics, 1)


def test_a_full_disk_costs_the_record_and_not_the_training(record, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    live = LiveRun(record)
    monkeypatch.setattr(Record, "note_point", full)
    with ended_honestly(live):
        for step in range(1, 4):
            live.log(step, {"loss": 1.0})
    assert capsys.readouterr().err.count("not recorded") == 1
    run_id = find_run(live._client, "small", record.fingerprint).info.run_id
    assert live._client.get_run(run_id).info.status == "FINISHED"


def test_a_line_that_a_full_disk_has_cut_is_no_point(record):
    live = LiveRun(record)
    with ended_honestly(live):
        live.log(1, {"loss": 1.0})
    path = record.folder / "live.jsonl"
    path.write_text(path.read_text() + '{"step": 2, "ti')
    assert [point.step for point in record.points] == [1]
