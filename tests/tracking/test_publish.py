import shutil

import pytest

from biasline.tracking.live import LiveRun, ended_honestly
from biasline.tracking.publish import find_run, publish
from biasline.tracking.record import Record, all_records, record_of_workspace
from biasline.tracking.store import connect


@pytest.fixture
def record(trained):
    found = record_of_workspace("small")
    assert found is not None
    found.observe(**{"train.seconds": 1.5})
    return found


@pytest.mark.draws
def test_a_run_has_params_metrics_tags_input_figures_and_files(record):
    client = connect()
    run = client.get_run(publish(client, record))
    assert run.info.status == "FINISHED"
    assert run.data.params["biases"] == "all"
    assert float(run.data.params["learning_rate"]) == 1e-2
    assert 20 <= len(run.data.params) <= 30
    for name in ("train.loss", "tuned.exact_match", "base.exact_match", "gain.exact_match", "train.seconds"):
        assert name in run.data.metrics, name
    for name in ("data.sha256", "base.digest", "params.sha256", "test.sha256", "delta.sha256", "version.torch"):
        assert run.data.tags[name], name
    assert run.data.tags["biasline.fingerprint"] == record.fingerprint
    assert run.inputs.dataset_inputs[0].dataset.name == "rows.jsonl"
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"model", "evaluation", "figures", "history.csv", "quality.md", "preview.md"} <= files
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {
        "figures/lengths.png",
        "figures/loss.png",
        "figures/metric_by_slice.png",
        "figures/bias_change.png",
    }


def test_publishing_again_makes_no_doubles(record):
    client = connect()
    first = publish(client, record)
    record.observe(**{"train.seconds": 2.5})  # something new: all is looked at again
    assert publish(client, record) == first
    assert len(client.get_metric_history(first, "train.loss")) == 1
    assert [point.value for point in client.get_metric_history(first, "train.seconds")] == [1.5, 2.5]
    assert len(client.search_runs([client.get_run(first).info.experiment_id])) == 1


def test_a_record_keeps_a_run_that_the_workspace_lost(record, trained):
    shutil.rmtree(trained[1].model)
    assert record_of_workspace("small") is None
    assert [found.fingerprint for found in all_records("small")] == [record.fingerprint]
    client = connect()
    publish(client, record)
    assert find_run(client, "small", record.fingerprint) is not None


def test_an_evaluation_of_another_model_is_not_taken(record, trained):
    place = trained[1]
    other = Record("small", "f" * 16)
    other.take(place)
    assert other.read(place.metrics) is None
    assert other.read(place.quality) is not None


def test_live_metrics_and_the_published_history_are_the_same_points(trained):
    _, place = trained
    record = record_of_workspace("small")
    live = LiveRun(record)
    with ended_honestly(live):
        live.log(4, {"loss": 1.25, "valid_loss": 2.5})
    client = connect()
    run = publish(client, record)
    assert [(point.step, point.value) for point in client.get_metric_history(run, "train.loss")] == [(4, 1.25)]
    assert client.get_metric_history(run, "valid.loss")[0].value == 2.5


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_breaks_ends_so(trained, error, status):
    record = record_of_workspace("small")
    live = LiveRun(record)
    with pytest.raises(error), ended_honestly(live):
        raise error
    assert find_run(connect(), "small", record.fingerprint).info.status == status


def test_a_store_that_is_away_is_a_warning(trained, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    live = LiveRun(record_of_workspace("small"))
    live.log(1, {"loss": 1.0})
    live.end("FINISHED")
    assert "warning: not tracked live" in capsys.readouterr().err
