"""A package is loaded and asked in a process of its own before it is a version."""

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.registry.aliases import CANDIDATE
from biasline.registry.sync import register
from biasline.serving import package_check
from biasline.serving.registered import aliased
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect


@pytest.fixture
def record(trained, monkeypatch):
    """A record of the workspace's model, with the real check in the place of the fixture's."""
    monkeypatch.setattr("biasline.registry.versions.check_package", package_check.check_package)
    return record_of_workspace("small")


def says_otherwise(record, place, rows):
    """As if the evaluation had been of another model in some rows."""
    path = record.file(place.predictions)
    frame = pl.read_parquet(path).with_row_index("at")
    other = pl.when(pl.col("at") < rows).then(pl.lit("something else")).otherwise(pl.col("tuned"))
    frame.with_columns(other.alias("tuned")).drop("at").write_parquet(path)


@pytest.mark.slow
def test_a_package_that_answers_as_evaluated_is_registered_and_not_asked_twice(record, monkeypatch):
    client = connect()
    version = register(client, record)
    assert aliased(client, "small", CANDIDATE).version == version.version
    assert record.is_proved(version.tags["biasline.package"])
    monkeypatch.setattr("biasline.registry.versions.check_package", None)
    client.delete_registered_model("biasline-small")
    assert int(register(client, record).version) == 1  # a wiped registry, rebuilt


@pytest.mark.slow
def test_a_package_that_answers_otherwise_gets_no_version(record, trained):
    says_otherwise(record, trained[1], rows=3)
    client = connect()
    told = r"gives 3 of \d+ test rows another answer than its evaluation; row \d+: '.*', evaluated 'something else'"
    with pytest.raises(BiaslineError, match=told):
        register(client, record)
    assert aliased(client, "small", CANDIDATE) is None
    assert not client.search_model_versions("name = 'biasline-small'")
    experiment = client.get_experiment_by_name("small").experiment_id
    assert not client.search_logged_models([experiment])


@pytest.mark.slow
def test_a_package_that_does_not_load_gets_no_version(record, workspace):
    (workspace / "data/bases/tiny-bloom/tokenizer.json").unlink()
    with pytest.raises(BiaslineError, match="does not load in a process of its own: .*tokenizer.json"):
        register(connect(), record)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ({"score": 31.0}, {"score": 31.001}, True),
        ({"score": 31.0}, {"score": 31.5}, False),
        ({"label": "a", "probability": 0.9}, {"label": "b", "probability": 0.9}, False),
        ({"label": "a", "probability": 0.9}, {"label": "a", "probability": 0.90001}, True),
    ],
)
def test_answers_are_alike_but_for_last_digits(one, other, alike):
    assert package_check.alike(one, other) is alike
