from benchmarks import erasing
from tests.conftest import enter


def test_a_tenants_rows_and_trainings_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(erasing, "TENANTS", 8)
    monkeypatch.setattr(erasing, "RUNS", 2)
    enter(tmp_path, monkeypatch)  # not the store of whichever test was before
    erasing.lay(tmp_path)
    assert (tmp_path / "mlflow.db").is_file()
    found, seconds = erasing.looked()
    assert found.selected.rows == erasing.EACH and seconds > 0
    assert list(found.trainings.how.values()) == ["trained on"] * 2 and len(found.trainings.runs) == 2
