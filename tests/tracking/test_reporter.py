"""What a training reports: lines in a log, its run, its record; by how it ended."""

import re
from types import SimpleNamespace

import pytest

from biasline.layout import TaskPlace
from biasline.tracking.publish import find_run
from biasline.tracking.record import Record, record_of_workspace
from biasline.tracking.reporter import StepReporter, TrainingReporter, report_evaluation
from biasline.tracking.reuse import Work, evaluation_work, training_work
from biasline.tracking.store import connect


@pytest.fixture
def place(trained):
    return trained[1]


@pytest.fixture
def work(trained):
    return training_work(*trained)


@pytest.fixture
def start(place):
    """As the training of the workspace's model begins."""
    return SimpleNamespace(fingerprint=record_of_workspace(place.task).fingerprint, steps=4)


@pytest.fixture
def every_line(monkeypatch):
    """A log has a line per step, not one every ten seconds."""
    monkeypatch.setattr("biasline.progress._LINE_EVERY_S", 0.0)


def row(loss, tokens, **more):
    return {"loss": loss, "tokens": tokens, "seconds": 0.5, **more}


def run_of(record):
    client = connect()
    return client, find_run(client, record.task, record.fingerprint)


def test_a_log_has_the_loss_and_the_last_validation_loss(place, start, work, every_line, capsys):
    with TrainingReporter(place, work) as reporter:
        report = reporter.begin(start)
        report(1, row(2.5, 100, valid_loss=2.25, valid_accuracy=0.5), False)
        report(2, {}, False)
        report(3, row(1.5, 300), False)
        report(4, row(1.25, 400, valid_loss=1.125, valid_accuracy=0.75), False)
    lines = capsys.readouterr().out.splitlines()
    rate = r"[\d,]+ tokens/s"
    expected = [
        rf"step 1/4, \d+ s left, loss 2.5000, valid loss 2.2500, valid accuracy 0.5000, {rate}",
        rf"step 2/4, \d+ s left, loss 2.5000, valid loss 2.2500, valid accuracy 0.5000, {rate}",
        rf"step 3/4, \d+ s left, loss 1.5000, valid loss 2.2500, valid accuracy 0.5000, {rate}",
        rf"step 4/4, 0 s left, loss 1.2500, valid loss 1.1250, valid accuracy 0.7500, {rate}",
    ]
    assert len(lines) == 4
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_run_has_what_was_reported_and_ends_as_finished(place, start, work):
    with TrainingReporter(place, work) as reporter:
        report = reporter.begin(start)
        report(2, row(2.5, 100), False)
        report(4, row(1.5, 300), False)
    client, run = run_of(reporter.record)
    losses = client.get_metric_history(run.info.run_id, "train.loss")
    assert [(point.step, point.value) for point in losses] == [(2, 2.5), (4, 1.5)]
    assert run.info.status == "FINISHED" and "train.tokens_per_second" in run.data.metrics
    assert not [name for name in run.data.metrics if name.endswith("seconds")], "a row's seconds are no metric"


def test_a_finished_training_is_in_its_record_and_published(place, start, work):
    record = Record(place.task, start.fingerprint)
    for path in (place.history, place.delta):
        record.file(path).unlink()
    with TrainingReporter(place, work) as reporter:
        reporter.begin(start)(4, row(1.5, 300), False)
    assert reporter.record.fingerprint == start.fingerprint and work.reuse(), "it is noted as done"
    assert record.file(place.delta).read_bytes() == place.delta.read_bytes() and record.file(place.history).is_file()
    assert record.observed["train.seconds"] >= 0 and record.observed["train.peak_memory_mb"] > 0
    reporter.publish()
    client, run = run_of(record)
    assert "history.csv" in {item.path for item in client.list_artifacts(run.info.run_id)}
    assert run.data.metrics["train.peak_memory_mb"] == record.observed["train.peak_memory_mb"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("broken"), "FAILED"), (SystemExit(143), "KILLED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_training_that_is_broken_off_says_so_and_is_not_taken(place, start, work, error, status):
    reporter = TrainingReporter(place, work)
    with pytest.raises(type(error)), reporter:
        reporter.begin(start)(1, row(2.5, 100), False)
        raise error
    _, run = run_of(reporter.record)
    assert run.info.status == status
    assert reporter.record.observed == {} and not work.reuse()


def test_what_an_earlier_process_did_says_nothing_about_the_speed(place, start, every_line, capsys):
    seen = []
    live = SimpleNamespace(log=lambda step, values: seen.append((step, values)))
    shown = SimpleNamespace(skipped=[], at_=[])
    shown.skip, shown.at = shown.skipped.append, lambda step, note: shown.at_.append((step, note))
    report = StepReporter(live, shown)
    values = row(2.5, 100)
    report(2, values, True)
    assert seen == [(2, {"loss": 2.5, "tokens": 100})]
    assert shown.skipped == [2] and shown.at_ == []
    assert values == row(2.5, 100), "the caller's row is left as it is"
    report(4, row(1.5, 300), False)
    assert seen[1][0] == 4 and {"tokens_per_second", "system/peak_memory_megabytes"} <= set(seen[1][1])
    [(step, note)] = shown.at_
    assert step == 4 and re.fullmatch(r"loss 1\.5000, [\d,]+ tokens/s", note)
    assert report.meter.observed()["train.seconds"] >= 0.5


def test_in_further_processes_of_a_training_nothing_is_reported(workspace):
    nothing = Work(Record("small", "f" * 16), "train", "f" * 16, (), False)
    with TrainingReporter(TaskPlace("small"), nothing) as reporter:
        pass
    reporter.publish()
    assert reporter.record is None
    assert not (workspace / ".biasline").exists() and not (workspace / "mlflow.db").exists()


def test_an_evaluation_is_in_its_models_record_and_published(trained, place):
    report_evaluation(evaluation_work(*trained), 1.26, {"tuned.latency_ms": 2.5})
    assert evaluation_work(*trained).reuse(), "it is noted as done"
    record = record_of_workspace(place.task)
    assert record.observed == {"evaluate.seconds": 1.3, "tuned.latency_ms": 2.5}
    client, run = run_of(record)
    assert run.data.metrics["tuned.latency_ms"] == 2.5
    assert "evaluation" in {item.path for item in client.list_artifacts(run.info.run_id)}
