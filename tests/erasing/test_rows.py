"""Rows that are to go: found in raw files by a list or a filter, and in what servers kept."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from biasline.erasing.rows import any_left, parsed_where, select, take_out
from biasline.erasing.served import served_rows
from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.serving.traffic import SCHEMA


@pytest.fixture
def data(tmp_path):
    """A folder of two files of reviews of two customers, one text of both."""
    folder = tmp_path / "raw"
    folder.mkdir()
    rows = [(f"film {number} was fine", "good", "acme" if number < 4 else "other") for number in range(10)]
    rows += [("they all say so", "good", "acme"), ("they all say so", "good", "other")]
    (folder / "a.csv").write_text("text,label,customer\n" + "".join(",".join(row) + "\n" for row in rows))
    more = {"text": "a plum of a film", "label": "bad", "customer": "acme"}
    (folder / "b.jsonl").write_text(json.dumps(more) + "\n" + json.dumps({**more, "customer": "other"}) + "\n")
    return folder


TASK = Task(kind="classification", base="b.json", data="raw")


def test_a_filter_names_rows_and_texts_of_others_may_come_back(data):
    found = select(TASK, data, None, parsed_where(["customer=acme"]))
    assert (found.rows, found.total) == (6, 14)
    assert found.records == {data / "a.csv": {0, 1, 2, 3, 10}, data / "b.jsonl": {0}}
    assert found.kept_elsewhere == {"they all say so", "a plum of a film"}
    assert found.refused == {f"film {number} was fine" for number in range(4)}
    for path, numbers in found.records.items():
        take_out(TASK, data, path, numbers)
    assert "acme" not in (data / "a.csv").read_text() + (data / "b.jsonl").read_text()
    assert select(TASK, data, None, parsed_where(["customer=acme"])).rows == 0  # as after a crash
    assert any_left(TASK, data, found.keys) and not any_left(TASK, data, found.refused)
    take_out(TASK, data, data / "b.jsonl", {0}, dry_run=True)
    assert (data / "b.jsonl").exists()
    take_out(TASK, data, data / "b.jsonl", {0})
    assert not (data / "b.jsonl").exists() and (data / "a.csv").is_file()
    with pytest.raises(BiaslineError, match="no column 'client'"):
        select(TASK, data, None, parsed_where(["client=acme"]))


def test_a_list_names_rows_whatever_their_case_and_space(data, tmp_path):
    (tmp_path / "gone.txt").write_text("FILM 1  was fine\na Plum of a film\nnever there\n")
    found = select(TASK, data, tmp_path / "gone.txt", "")
    assert found.records == {data / "a.csv": {1}, data / "b.jsonl": {0, 1}} and found.kept_elsewhere == frozenset()
    assert "never there" in found.refused and found.absent == 1  # it may have been served, and never come in


def test_filters_of_a_command_line():
    assert parsed_where(["customer=acme", "year = 2024"]) == {"customer": "acme", "year": "2024"}
    assert parsed_where(["text=it's so", "a=b=c", "d="]) == {"text": "it's so", "a": "b=c", "d": ""}
    assert parsed_where(["customer='acme'"]) == "customer='acme'"
    assert parsed_where(["customer = 'acme' and year < 3"]) == "customer = 'acme' and year < 3"
    with pytest.raises(BiaslineError, match="column=value was expected"):
        parsed_where(["customer=acme", "year < 3"])


def test_a_tenant_is_erased_alone(tmp_path):
    rows = [{"instruction": f"say {n}", "output": f"{n}", "shop": shop} for shop in ("one", "two") for n in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    task = Task(base="b.json", data="rows.json", tenants={"column": "shop"})
    found = select(task, tmp_path / "rows.json", None, {"shop": "one"})
    assert found.rows == 3 and found.refused == {f"one\x1fsay {n}" for n in range(3)}
    (tmp_path / "gone.json").write_text(json.dumps([{"instruction": "say 1", "shop": "two"}, {"instruction": "say 2"}]))
    found = select(task, tmp_path / "rows.json", tmp_path / "gone.json", "")
    assert found.refused == {"two\x1fsay 1", "one\x1fsay 2", "two\x1fsay 2"}


def test_texts_of_served_rows_go_with_what_was_said_of_them(tmp_path):
    def row(request, asked, task="mood", tenant=""):
        told = {"at": datetime(2026, 1, 1, tzinfo=UTC), "request": request, "task": task, "tenant": tenant}
        return {**told, "asked": asked, "answer": "x"}

    plum = json.dumps({"text": "A plum of  a film"})
    rows = [row("r0", json.dumps({"text": "another"})), row("r0", plum), row("r0", None), row("r3", plum, "other")]
    rows += [row("r4", "### Review: a plum of a film ###")]
    rows += [row("r5", json.dumps({"text": "and?", "history": [{"role": "user", "content": "A plum of a film"}]}))]
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(tmp_path / "one.parquet")
    (tmp_path / "feedback").mkdir()
    lines = [json.dumps({"request": "r0", "index": number}) for number in range(2)]
    (tmp_path / "feedback/f.jsonl").write_text("\n".join([*lines, '{"cut']))
    named = ({"a plum of a film"}, ["a plum of a film"])
    before = pl.read_parquet(tmp_path / "one.parquet")
    assert served_rows(tmp_path, "mood", TASK, *named, take_out=False) == 3
    assert pl.read_parquet(tmp_path / "one.parquet").equals(before)
    assert served_rows(tmp_path, "mood", TASK, *named, take_out=True) == 3
    after = pl.read_parquet(tmp_path / "one.parquet")
    assert after["request"].to_list() == before["request"].to_list()  # places name rows for what is said later
    assert [one is None for one in after["asked"]] == [False, True, True, False, True, True]
    assert [one is None for one in after["answer"]] == [False, True, False, False, True, True]
    assert (tmp_path / "feedback/f.jsonl").read_text() == "\n".join([lines[0], '{"cut'])
    assert served_rows(tmp_path, "mood", TASK, *named, take_out=True) == 0


def test_what_another_tenant_was_asked_stays(tmp_path):
    task = Task(base="b.json", data="rows.json", tenants={"column": "shop"})
    rows = [
        {
            "at": datetime(2026, 1, 1, tzinfo=UTC),
            "request": f"r{number}",
            "task": "shops",
            "tenant": shop,
            "asked": asked,
        }
        for number, (shop, asked) in enumerate(
            (shop, asked) for shop in ("one", "two") for asked in ("Q: say a plum", "")
        )
    ]
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(tmp_path / "one.parquet")
    keys, texts = {"one\x1fq: say a plum"}, ["q: say a plum"]
    assert served_rows(tmp_path, "shops", task, keys, texts, take_out=True) == 1
    assert pl.read_parquet(tmp_path / "one.parquet")["asked"].to_list() == [None, "", "Q: say a plum", ""]
