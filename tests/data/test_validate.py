import json

import polars as pl
import pytest

from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task


def task(**more):
    return Task(base="b", data="rows.jsonl", **more)


def test_the_outs_hold_every_row_once(workspace):
    place = TaskPlace("small")
    told = validate(task(), place)
    assert told.startswith("200 rows")
    rows = [
        row for name in ("train", "valid", "test", "quarantine") for row in pl.read_parquet(place.split(name))["row"]
    ]
    assert sorted(rows) == list(range(1, 201))
    numbers = json.loads(place.quality.read_text())
    assert numbers["rows"] == 200
    assert sum(numbers["splits"].values()) + numbers["quarantined"] == 200


def test_outs_are_the_same_bytes_each_time(workspace):
    place = TaskPlace("small")

    def outs():
        validate(task(), place)
        return {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}

    assert outs() == outs()


def test_the_page_shows_the_refused_rows(workspace):
    with open("rows.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "tell | me", "input": "", "output": "a\x07"}) + "\n")
    place = TaskPlace("small")
    validate(task(), place)
    page = place.quality_page.read_text(encoding="utf-8")
    assert "| 201 | control_characters | tell \\| me |  | a\\x07 |" in page


def test_a_failure_leaves_the_old_outs(workspace):
    place = TaskPlace("small")
    validate(task(), place)
    before = {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    with pytest.raises(BiaslineError):
        validate(task(quality={"max_output_chars": 1}), place)
    assert {path.name: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before
