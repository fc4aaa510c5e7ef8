"""What own deltas are worth: its cells, the rows that variants share, and its table."""

import json
from pathlib import Path

from benchmarks import fleet_quality
from benchmarks.fleet_quality import ROWS, SHOPS, TEST, Cell, cells, page, rows_of
from biasline.params import Task


def test_the_committed_page_is_what_was_measured():
    assert fleet_quality.OUT.read_text() == page()


def test_cells_have_names_of_their_own_and_parameters_that_hold():
    every = list(cells())
    assert len({cell.name for cell in every}) == len(every)
    for asked in fleet_quality.TASKS.values():
        Task.model_validate({**asked, "data": "raw", "tenants": {"column": "shop"}})


def test_each_shop_has_so_many_rows_and_none_twice():
    splits = rows_of(Cell("shops", ROWS[0], 1), Path("unused"))
    assert [len(part) for part in splits.values()] == [SHOPS] * 3
    for name, test in splits["test"].items():
        parts = [[json.dumps(row) for row in rows[name]] for rows in splits.values()]
        assert [len(part) for part in parts] == [ROWS[0], 10, TEST] and len(test) == TEST
        assert len({row for part in parts for row in part}) == sum(map(len, parts))
