import json

import pytest

from benchmarks import data


@pytest.fixture
def alpaca(tmp_path, shared):
    rows = json.loads((shared / "data/alpaca_en/alpaca_data.json").read_text(encoding="utf-8"))[:300]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.slow
def test_the_benchmark_measures_what_it_tells(alpaca, shared, monkeypatch, capsys):
    monkeypatch.setattr(data, "ROUNDS", 1)
    monkeypatch.setattr(data, "TIMES", (1,))
    monkeypatch.setattr(data, "MANY", 700)
    found = data.measure(alpaca, shared / "tokenizers/gpt2")
    assert found["rows"] == 300
    assert [stage["rows"] for stage in found["stages"]] == [300, 700]
    for stage in found["stages"]:
        for name in ("validate", "augment", "tokenize"):
            assert stage[name]["s"] > 0 and 20 < stage[name]["peak_mb"] < 2000
    times = found["in_process"]
    assert times["tokenize_per_map"] == pytest.approx(times["map_s"] / times["tokenize_s"])
    assert "× the map's rate" in capsys.readouterr().out


def test_rows_beyond_the_files_own_are_as_long_and_no_copies(tmp_path):
    rows = [{"instruction": f"one two three {n}", "input": "", "output": f"a b c d e {n}"} for n in range(5)]
    (tmp_path / "data").mkdir()
    place = data.task_of(tmp_path, rows, 15)
    made = json.loads((tmp_path / place.folder / "raw.json").read_text())
    assert made[:5] == rows and len(made) == 15
    assert [sorted(row["output"].split()) for row in made[5:10]] == [sorted(row["output"].split()) for row in rows]
    assert made[5:10] != rows
