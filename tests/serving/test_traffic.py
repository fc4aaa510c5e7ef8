"""How often two versions said the same to users, out of the files that a server wrote."""

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.evaluation.statistics import wilson_interval
from biasline.serving.server.traffic import Traffic
from biasline.serving.traffic import Agreement, agreements


def written(folder, said, task="a", shadow="f2"):
    """A file of rows that a version answered, and its shadow as `said`."""
    traffic = Traffic(str(folder))
    told = {"task": task, "version": "1", "fingerprint": "f1"}
    if shadow:
        told |= {"shadow_version": "2", "shadow_fingerprint": shadow}
    others = list(said) if shadow else None
    traffic.add(told, [], ["q"] * len(said), ["x"] * len(said), others)
    traffic.flush()


def test_pairs_are_counted_over_all_files(tmp_path):
    written(tmp_path, "xxxy")
    written(tmp_path, "xx")
    written(tmp_path, "yy", shadow="f3")
    written(tmp_path, "xxx", task="b")
    written(tmp_path, "xxx", shadow="")
    found = agreements(tmp_path, "a")
    assert found == [Agreement("f1", "f2", 6, 5), Agreement("f1", "f3", 2, 0)]
    assert found[0].share == 5 / 6 and found[0].interval == wilson_interval(5, 6)
    assert agreements(tmp_path, "c") == []


def test_rows_that_say_nothing_to_compare_do_not_count(tmp_path):
    traffic = Traffic(str(tmp_path))
    told = {"task": "a", "version": "1", "fingerprint": "f1", "shadow_version": "2", "shadow_fingerprint": "f2"}
    traffic.add(told, [], ["q"], [{"score": 1.0}], [{"score": 2.0}])
    traffic.flush()
    assert agreements(tmp_path, "a") == []


def test_what_the_shadow_failed_on_is_said_otherwise(tmp_path):
    traffic = Traffic(str(tmp_path))
    told = {"task": "a", "version": "1", "fingerprint": "f1", "shadow_version": "2", "shadow_fingerprint": "f2"}
    traffic.add(told, [], ["q"] * 2, ["x"] * 2, None, unable=True)
    traffic.add(told, [], ["q"], ["x"], None)  # the server was busy, say
    traffic.flush()
    assert agreements(tmp_path, "a") == [Agreement("f1", "f2", 2, 0)]


def test_tenants_that_keep_their_delta_do_not_count(tmp_path):
    traffic = Traffic(str(tmp_path))
    told = {"task": "a", "version": "1", "fingerprint": "f1", "shadow_version": "2", "shadow_fingerprint": "f2"}
    traffic.add(told, ["one", "two", "two"], ["q"] * 3, ["x"] * 3, ["x", "y", "y"])
    traffic.flush()
    assert agreements(tmp_path, "a") == [Agreement("f1", "f2", 3, 1)]
    assert agreements(tmp_path, "a", ["two"]) == [Agreement("f1", "f2", 1, 1)]


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "[traffic] of *?"
    folder.mkdir()
    assert agreements(folder, "a") == []
    written(folder, "xy")
    assert agreements(folder, "a") == [Agreement("f1", "f2", 2, 1)]


def test_what_is_no_traffic_is_named(tmp_path):
    with pytest.raises(BiaslineError, match="no such folder of traffic"):
        agreements(tmp_path / "gone", "a")
    pl.DataFrame({"task": ["a"]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(BiaslineError, match=r"other\.parquet: not a file of a server's traffic"):
        agreements(tmp_path, "a")
    (tmp_path / "other.parquet").write_text("no parquet")
    with pytest.raises(BiaslineError, match=r"other\.parquet: not a file of a server's traffic"):
        agreements(tmp_path, "a")
