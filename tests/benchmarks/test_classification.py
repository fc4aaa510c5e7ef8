import json

import pytest

from benchmarks import classification
from benchmarks.classification import CLASSIFICATION, METHODS, Cell, cells, done, page, prepare


@pytest.fixture
def bench(tmp_path, monkeypatch, root):
    """The benchmark on the demo base, with few rows and steps, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("CELLS", "WORK"):
        monkeypatch.setattr(classification, name, tmp_path / name.lower())
    monkeypatch.setattr(classification, "BASE", root / "data/bases/tiny-bloom.json")
    monkeypatch.setitem(classification._LOOKS, "40", 5)
    monkeypatch.setitem(classification._COMMON, "pooling", "auto")
    for method in METHODS:
        monkeypatch.setitem(METHODS, method, METHODS[method] | {"epochs": 1, "min_steps": 5})
    rows = [f"the {'good' if number % 2 else 'bad'} film {number}\t{number % 2}" for number in range(90)]
    (tmp_path / "sst2").mkdir()
    for name, part in (("train", rows[:60]), ("dev", rows[60:])):
        (tmp_path / f"sst2/{name}.tsv").write_text("\n".join(["sentence\tlabel", *part]) + "\n")
    return tmp_path


@pytest.mark.slow
def test_each_cell_is_one_json_that_is_not_done_twice(bench, monkeypatch):
    for method in ("bitfit-value", "article", "full"):
        cell = Cell("sst2", "40", method, 1)
        prepare(cell, bench)
        assert not done(cell)
        CLASSIFICATION.run(cell, bench)
        assert done(cell)
        told = json.loads(cell.path.read_text())
        assert told["splits"] == {"train": 40, "valid": 4, "test": 30}
        assert 0 <= told["tuned"]["accuracy"] <= 1 and told["steps"] >= 2
    assert told["trainable"]["weights"] > 1_000_000 and told["bytes"] > 2 * 1_500_000
    article = json.loads(Cell("sst2", "40", "article", 1).path.read_text())
    assert article["trainable"]["head"] == 0 and "bytes" not in article
    monkeypatch.setitem(METHODS, "full", METHODS["full"] | {"epochs": 2})
    assert not done(cell)  # its settings are others now


def test_the_table_has_means_ranges_and_distances(bench):
    for name, method in (("bitfit-all", 0.80), ("full", 0.83), ("head", 0.70)):
        for seed, more in ((0, 0.0), (1, 0.02)):
            cell = Cell("sst2", "1000", name, seed)
            counts = {"biases": 10, "head": 2, "total": 12}
            told = {
                "settings": cell.settings(),
                "seed": seed,
                "trainable": counts,
                "bytes": 48,
                "splits": {"train": 1000},
            }
            told |= {"tuned": {"accuracy": method + more}, "base": {"accuracy": 0.5}}
            classification.CELLS.mkdir(exist_ok=True)
            cell.path.write_text(json.dumps(told))
    table = page()
    assert "| sst2 1,000 rows (2 seeds) |" in table
    assert "| majority | | | | 0.500 |" in table
    assert "| bitfit-all | 10 | 2 | 48 | 0.810 [0.800, 0.820] |" in table
    assert "- sst2 1000 rows, full: -3.0 (-3.0, -3.0)" in table
    assert "article" not in table


def test_cells_have_names_of_their_own_and_parameters_that_hold():
    every = list(cells())
    assert len({cell.name for cell in every}) == len(every)
    for cell in every:
        assert cell.task().train.seed == cell.seed
