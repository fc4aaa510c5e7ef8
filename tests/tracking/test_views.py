import json

import pytest

from biasline.params import Task
from biasline.tracking.store import connect, experiment_id
from biasline.tracking.views import chart_path, share_view_of, table_path

TAG, NOTE = "mlflow.sharedViewState.biasline", "mlflow.note.content"


@pytest.fixture
def shared_view(store):
    """(client, experiment's id, a function that gives it the view of a kind of task and reads it back)."""
    client = connect()
    experiment = experiment_id(client, "small")

    def share(**task):
        asked = Task(base="base.json", data="rows.jsonl", **task)
        share_view_of(client, experiment, asked.declared(asked.decided_by({})))
        return json.loads(json.loads(client.get_experiment(experiment).tags[TAG])["state"])

    return client, experiment, share


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ({}, "exact_match"),
        ({"kind": "classification"}, "accuracy"),
        ({"kind": "classification", "gates": {"metric": "mcc"}}, "mcc"),
        ({"kind": "regression"}, "pearson"),
    ],
)
def test_a_view_is_ordered_by_the_metric_that_decides(shared_view, task, metric):
    state = shared_view[2](**task)
    assert state["orderByKey"] == f"metrics.`tuned.{metric}`"
    assert state["orderByKey"] in state["selectedColumns"]
    assert not state["orderByAsc"]


def test_a_view_fits_into_a_tag_of_mlflow(shared_view):
    client, experiment, share = shared_view
    share()
    assert len(client.get_experiment(experiment).tags[TAG]) < 5000


def test_sharing_again_writes_nothing(shared_view, monkeypatch):
    client, _, share = shared_view
    share()
    monkeypatch.setattr(client, "set_experiment_tag", lambda *_: pytest.fail("a tag was written"))
    share()


def test_a_description_that_someone_wrote_stays(shared_view):
    client, experiment, share = shared_view
    client.set_experiment_tag(experiment, NOTE, "our own words")
    share()
    assert client.get_experiment(experiment).tags[NOTE] == "our own words"


def test_the_description_links_table_and_charts(shared_view):
    client, experiment, share = shared_view
    share()
    note = client.get_experiment(experiment).tags[NOTE]
    assert f"(.{table_path(experiment)})" in note
    assert f"(.{chart_path(experiment)})" in note
