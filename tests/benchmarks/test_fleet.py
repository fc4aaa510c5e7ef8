import json

from benchmarks import fleet


def test_the_committed_page_is_what_was_measured():
    found = json.loads(fleet.OUT.read_text())
    assert fleet.page(found) == fleet.OUT.with_suffix(".md").read_text()
    assert {str(count) for count in fleet.MANY} <= found["stores"].keys()


def test_rows_are_of_so_many_shops():
    rows = [json.loads(line) for line in fleet.rows_of(3, 20).splitlines()]
    assert len(rows) == 60 and len({row["shop"] for row in rows}) == 3
