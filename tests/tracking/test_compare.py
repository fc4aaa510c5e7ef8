"""Runs beside each other: equal test rows only, paired differences, what is missing."""

import json
import shutil
import subprocess

import polars as pl
import pytest
from typer.testing import CliRunner

from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.tracking.compare import as_markdown, compare, queue_commands, run_missing
from biasline.tracking.publish import publish
from biasline.tracking.record import Record, record_of_workspace
from biasline.tracking.store import connect


@pytest.fixture
def record(trained):
    found = record_of_workspace("small")
    found.observe(**{"train.seconds": 2.0, "train.peak_memory_mb": 300.0, "tuned.latency_ms": 1.5})
    return found


def another(record, fingerprint, method="lora", right=0.5, test=""):
    """A further run: the record under another fingerprint and method, with so many right answers."""
    other = Record(record.task, fingerprint)
    shutil.copytree(record.folder, other.folder)
    for path in other.files.rglob("*.json"):
        path.write_text(path.read_text().replace(record.fingerprint, fingerprint))
    from biasline.layout import TaskPlace

    place = TaskPlace(record.task)
    task = json.loads(other.file(place.resolved).read_text())
    task["train"]["method"] = method
    other.file(place.resolved).write_text(json.dumps(task))
    answers = pl.read_parquet(other.file(place.predictions))
    hits = [index < right * answers.height for index in range(answers.height)]
    answers.with_columns(tuned_exact=pl.Series(hits)).write_parquet(other.file(place.predictions))
    metrics = json.loads(other.file(place.metrics).read_text())
    metrics["tuned"]["exact_match"] = sum(hits) / len(hits)
    metrics["test_sha256"] = test or metrics["test_sha256"]
    other.file(place.metrics).write_text(json.dumps(metrics))
    return other


def test_runs_stand_by_quality_with_paired_differences(record, trained):
    client, task = connect(), trained[0]
    for one in (record, another(record, "a" * 16, "lora", 0.1), another(record, "b" * 16, "full", 1.0)):
        publish(client, one)
    found = compare(client, "small", task)
    assert [row.method for row in found.runs] == ["full", "bitfit", "lora"]
    full, bitfit, lora = found.runs
    assert full.value == 1.0 and 0 < lora.value < bitfit.value
    assert bitfit.gain is None
    for row in (full, lora):
        assert row.gain == pytest.approx(row.value - bitfit.value, abs=1e-6)
        assert row.gain_low < row.gain < row.gain_high
    assert (bitfit.trained, bitfit.head, bitfit.seconds, bitfit.latency_ms) == (6720, 0, 2.0, 1.5)
    assert bitfit.bytes == sum(path.stat().st_size for path in trained[1].model.iterdir() if path.suffix != ".json")
    assert found.missing == ("prefix",) and found.others == 0
    page = as_markdown(found).splitlines()
    assert page[2].startswith("| full · bbbbbb | 1.000") and f"{lora.gain:+.3f} [" in page[4]
    assert {line.count("|") for line in page[:5]} == {page[0].count("|")}


def test_runs_on_other_test_rows_are_left_out(record, trained):
    client = connect()
    for one in (record, another(record, "a" * 16, test="0" * 64)):
        publish(client, one)
    found = compare(client, "small", trained[0])
    assert [row.method for row in found.runs] == ["bitfit"] and found.others == 1


def test_without_a_record_the_stores_own_files_serve(record, trained):
    client, task = connect(), trained[0]
    for one in (record, another(record, "a" * 16)):
        publish(client, one)
    before = compare(client, "small", task)
    shutil.rmtree(record.folder.parent)
    assert compare(client, "small", task) == before


def test_nothing_evaluated_is_told(store):
    with pytest.raises(BiaslineError, match="small: no run was evaluated by exact_match"):
        compare(connect(), "small", Task(base="b", data="d"))


def test_what_is_missing_is_queued_with_the_methods_own_rates():
    [command] = queue_commands("small", ["lora"])
    assert command[:4] == ["dvc", "exp", "run", "--queue"] and command[-1] == "register@small"
    assert "++tasks.small.train.method=lora" in command and "++tasks.small.train.learning_rate=null" in command


def test_data_that_an_experiment_would_lack_is_refused(workspace):
    """Each would fail in its first stage, one after the other."""
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(BiaslineError, match=r"rows\.jsonl: unknown to git and to DVC.*git add rows\.jsonl"):
        run_missing("small", "rows.jsonl", ["lora"])
    (workspace / "rows.jsonl.dvc").touch()
    subprocess.run(["git", "add", "rows.jsonl.dvc"], check=True)
    with pytest.raises(BiaslineError, match="`dvc exp run --queue"):  # past that check: here is no project of DVC's
        run_missing("small", "rows.jsonl", ["lora"])


def test_experiments_that_failed_are_an_exit_code(record, monkeypatch):
    publish(connect(), record)
    monkeypatch.setattr("biasline.tracking.compare.run_missing", lambda *_: None)
    done = CliRunner().invoke(app, ["compare", "small", "--run"])
    assert done.exit_code == 1
    assert "no run of: lora, prefix, full; their messages are above" in done.output
