from benchmarks import erasing


def test_a_tenants_rows_and_trainings_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(erasing, "TENANTS", 8)
    monkeypatch.setattr(erasing, "RUNS", 2)
    monkeypatch.chdir(tmp_path)
    erasing.lay(tmp_path)
    found, seconds = erasing.looked()
    assert found.selected.rows == erasing.EACH and seconds > 0
    assert list(found.trainings.how.values()) == ["trained on"] * 2 and len(found.trainings.runs) == 2
