"""Rows of many tenants: named, told apart, and each with rows in each split."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.data.nearness import near_duplicates
from biasline.data.split import split_examples
from biasline.data.tenants import refuse_alike, tenant_notes, tenant_table, with_rows_of_each
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.layout import TaskPlace
from biasline.params import Split, Task

KIND = columns_of("instruction")


def frame(counts, ask="ask {}"):
    """`counts`: tenant → prompts; those of the same number are the same whosever they are."""
    rows = [
        (name, ask.format(number), "", "", f"{name} answers {number}")
        for name, count in counts.items()
        for number in range(count)
    ]
    made = pl.DataFrame(rows, schema=["shop", "instruction", "input", "history", "output"], orient="row")
    fixed = pl.lit(None, pl.String).alias("fixed_split")
    return made.with_row_index("row", 1).with_columns(pl.col("row").cast(pl.Int64), fixed)


def by_split(parts, name):
    return {split: set(part.filter(pl.col("shop") == name)["instruction"]) for split, part in parts.items()}


def test_each_tenant_with_prompts_enough_has_rows_of_each_split():
    counts = {f"shop {number}": number for number in range(1, 40)}
    parts = split_examples(frame(counts), KIND, Split(), "shop")
    assert sum(part.height for part in parts.values()) == sum(counts.values())
    for name, count in counts.items():
        found = by_split(parts, name)
        assert bool(found["train"])
        assert bool(found["test"]) == (count >= 2) and bool(found["valid"]) == (count >= 3)
    without = split_examples(frame(counts), KIND, Split(valid=0.0), "shop")
    assert without["valid"].is_empty()


def test_where_the_hash_gives_rows_nothing_is_moved():
    """What one tenant has moves no row of another, and rows go where they would without the floor."""
    alone = split_examples(frame({"a": 300}), KIND, Split(), "shop")
    both = split_examples(frame({"b": 2, "a": 300}), KIND, Split(), "shop")
    assert by_split(alone, "a") == by_split(both, "a")
    more = split_examples(frame({"a": 600}), KIND, Split(), "shop")
    for name, part in by_split(alone, "a").items():
        assert part <= by_split(more, "a")[name]


@pytest.mark.parametrize(
    ("dealt", "wanted"),
    [
        (("valid", "train"), ["test", "train"]),
        (("valid", "valid", "train"), ["test", "valid", "train"]),
        (("test", "test", "train"), ["valid", "test", "train"]),
        (("train", "train", "train"), ["test", "valid", "train"]),
        (("train", "train"), ["test", "train"]),
    ],
)
def test_one_prompt_at_least_is_trained_on(dealt, wanted):
    rows = range(len(dealt))
    places = [0.1 * number for number in rows]
    assert with_rows_of_each(dealt, ["a"] * len(dealt), [str(row) for row in rows], places, Split()) == wanted


def test_what_a_file_fixes_stays_where_it_is():
    places, given = [0.0, 0.1, 0.2], Split().model_copy(update={"test": 0.0})
    for dealt in (["train", "test", "test"], ["test", "test", "test"]):
        assert with_rows_of_each(dealt, ["a"] * 3, ["x", "y", "z"], places, given) == dealt


def test_a_group_stays_together_whoevers_rows_it_has():
    made = frame({"a": 40, "b": 40}).with_columns(page=(pl.int_range(80) % 20).cast(pl.String))
    parts = split_examples(made, KIND, Split(group="page"), "shop")
    pages = [set(part["page"]) for part in parts.values()]
    assert sum(map(len, pages)) == len(set.union(*pages)) == 20


@pytest.mark.parametrize("name", ["row", "instruction", "history", "base_model", "tuned"])
def test_a_column_of_the_tasks_own_names_no_tenants(tmp_path, monkeypatch, name):
    task, place = lay(tmp_path, monkeypatch, rows_of("a", 40), tenants={"column": name})
    with pytest.raises(BiaslineError, match=rf"tenants\.column: '{name}' is a name that the task's own columns have"):
        validate(task, place)


def test_tenants_are_dealt_each_in_its_own_way():
    parts = split_examples(frame({"a": 100, "b": 100}), KIND, Split(), "shop")
    assert by_split(parts, "a")["test"] != by_split(parts, "b")["test"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=1, max_size=30))
def test_copies_of_a_prompt_stay_together(rows):
    made = pl.DataFrame(
        [(number, shop, f"ask {what}", "", "", f"{number}") for number, (shop, what) in enumerate(rows)],
        schema=["row", "shop", "instruction", "input", "history", "output"],
        orient="row",
    ).with_columns(pl.lit(None, pl.String).alias("fixed_split"))
    parts = split_examples(made, KIND, Split(), "shop")
    for name in "abc":
        found = list(by_split(parts, name).values())
        assert sum(map(len, found)) == len(set.union(*found))


def test_near_copies_are_looked_for_within_a_tenant():
    text = " ".join(f"word{number}" for number in range(60))
    texts = pl.Series([text, f"{text} more", "short one", "short one", f"{text} more"])
    groups = pl.Series(["a", "b", "a", "b", "a"])
    assert near_duplicates(texts, 0.8) == {1: 0, 3: 2, 4: 1}
    assert near_duplicates(texts, 0.8, groups=groups) == {4: 0}
    parts = pl.Series([0, 0, 0, 1, 1])
    assert near_duplicates(texts, 0.8, parts, pl.Series(["a", "b", "a", "a", "b"])) == {3: 2, 4: 1}


@pytest.mark.parametrize(("one", "other"), [("Müller", "MÜLLER"), ("cafe\u0301", "café"), ("A  B", "a b"), ("①", "1")])
def test_names_that_look_alike_are_refused(one, other):
    with pytest.raises(BiaslineError, match=r"\(row 1\) and .* \(row 4\) differ in case"):
        refuse_alike(frame({one: 3, other: 2}), "shop")


def test_the_table_counts_each_row_once():
    counts = {"b": 30, "a": 4, "c": 1}
    parts = split_examples(frame(counts), KIND, Split(), "shop")
    quarantine = pl.DataFrame({"shop": ["a", " a ", None, "", "z"]})
    table = tenant_table(parts, quarantine, "shop")
    assert table["tenant"].to_list() == ["a", "b", "c", "z"]
    assert table.columns == ["tenant", "train", "valid", "test", "quarantined"]
    assert table["quarantined"].to_list() == [2, 0, 0, 1]
    assert table.select(pl.sum_horizontal("train", "valid", "test")).to_series().to_list() == [4, 30, 1, 0]
    notes = "\n".join(tenant_notes(table, 20))
    assert "4 tenants" in notes and "1 tenants have no training row: 'z'" in notes
    assert (
        "2 tenants have fewer than tenants.min_rows (20) training rows: the shared delta serves them: 'a', 'c'" in notes
    )
    assert "1 tenants have no test row: nothing can be said of how well they are served: 'c'" in notes


def lay(tmp_path, monkeypatch, rows, **others):
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    task = {
        "base": "b",
        "data": "rows.jsonl",
        "tenants": {"column": "shop"},
        "quality": {"max_quarantine": 0.9},
        **others,
    }
    return Task.model_validate(task), TaskPlace("fleet")


def rows_of(name, count):
    return [
        {"shop": name, "instruction": f"What does it say on door {number}?", "output": f"{name}: {number * 7}"}
        for number in range(count)
    ]


def test_odd_names_are_names(tmp_path, monkeypatch, capsys):
    odd = ["a shop", "a/b\\c", "🍕 & co", "x" * 300, "店", "..", "'; DROP"]
    rows = [row for name in odd for row in rows_of(name, 30)]
    rows += [{**rows_of("gone", 1)[0], "shop": name} for name in (None, "", "  ")]
    rows += [{"shop": "only broken", "instruction": "", "output": ""}, *rows_of("one row", 1)]
    task, place = lay(tmp_path, monkeypatch, rows)
    validate(task, place)
    table = pl.read_parquet(place.tenants)
    assert set(table["tenant"]) == {*odd, "only broken", "one row"}
    named = table.filter(pl.col("tenant").is_in(odd))
    assert (named.select(pl.sum_horizontal("train", "valid", "test")).to_series() == 30).all()
    assert (named["test"] > 0).all() and (named["valid"] > 0).all()
    assert json.loads(place.quality.read_text())["reasons"]["no_tenant"] == 3
    page = place.quality_page.read_text()
    assert "| 🍕 & co | " in page and "| only broken | 0 | 0 | 0 | 1 |" in page and f"{'x' * 57}… |" in page
    assert "| row | reasons | shop | " in page and "empty_instruction, empty_output | only broken | " in page
    told = capsys.readouterr().out
    assert "'only broken'" in told and "'one row'" in told
    # The same questions to each shop are copies of no other's.
    assert "near_duplicate" not in json.loads(place.quality.read_text())["reasons"]


def test_a_column_that_is_not_there_is_named(tmp_path, monkeypatch):
    task, place = lay(tmp_path, monkeypatch, rows_of("a", 40), tenants={"column": "customer"})
    with pytest.raises(BiaslineError, match=r"tenants.column: no column 'customer'; there are: .*shop"):
        validate(task, place)


def test_names_that_look_like_secrets_are_names_all_the_same(tmp_path, monkeypatch):
    rows = [*rows_of("ann@example.com", 30), {"shop": "ann@example.com", "instruction": "", "output": ""}]
    task, place = lay(tmp_path, monkeypatch, rows)
    validate(task, place)
    assert pl.read_parquet(place.tenants).select("tenant", "quarantined").rows() == [("ann@example.com", 1)]


def test_the_rule_cannot_be_switched_off(tmp_path, monkeypatch):
    task, place = lay(tmp_path, monkeypatch, rows_of("a", 40), quality={"off": ["no_tenant"]})
    with pytest.raises(BiaslineError, match="no_tenant cannot be switched off"):
        validate(task, place)


def test_rows_are_compared_within_a_tenant_alone(tmp_path, monkeypatch, capsys):
    rows = [
        {"shop": shop, "text": f"the number {number} is fine", "label": label}
        for shop, label in (("a", "yes"), ("b", "no"), ("c", "yes"))
        for number in range(20)
    ]
    rows += [{**rows[0]}, {**rows[1], "label": "no"}]
    task, place = lay(tmp_path, monkeypatch, rows, kind="classification")
    validate(task, place)
    table = {row["tenant"]: row for row in pl.read_parquet(place.tenants).iter_rows(named=True)}
    assert table["a"]["quarantined"] == 3  # a copy, and two rows that contradict each other
    assert table["b"]["quarantined"] == table["c"]["quarantined"] == 0
    assert json.loads(place.quality.read_text())["reasons"] == {"conflicting_duplicate": 2, "duplicate": 1}
    assert "59 rows ask word for word what another tenant's ask: counted, and kept" in capsys.readouterr().out
