from hypothesis import given
from hypothesis import strategies as st

from biasline.data.charts import bar, histogram, spread


def test_ranges_double_and_bars_are_in_proportion():
    lines = histogram([0, 1, 2, 3, 3, 9, 9, 9, 9], "tokens")
    assert lines == [
        "| tokens | rows | |",
        "|---:|---:|---|",
        "| 0 | 1 | " + "█" * 8 + " |",
        "| 1 | 1 | " + "█" * 8 + " |",
        "| 2–3 | 3 | " + "█" * 22 + " |",
        "| 4–7 | 0 |  |",
        "| 8–15 | 4 | " + "█" * 30 + " |",
    ]


def test_a_single_row_still_shows_and_none_does_not():
    assert bar(1, 100_000) == "█" and bar(0, 10) == ""
    assert len(histogram([], "tokens")) == 2


@given(st.lists(st.integers(0, 100_000), max_size=50))
def test_every_row_is_counted_once(sizes):
    counts = [int(line.split("|")[2].replace(",", "")) for line in histogram(sizes, "x")[2:]]
    assert sum(counts) == len(sizes)


def test_scores_are_spread_over_ten_equal_ranges():
    lines = spread([0.0, 0.4, 5.0, 10.0, 10.0], "score")
    assert lines[:3] == ["| score | rows | |", "|---:|---:|---|", "| 0–1 | 2 | " + "█" * 30 + " |"]
    assert lines[-1] == "| 9–10 | 2 | " + "█" * 30 + " |" and len(lines) == 12
    assert spread([3.0, 3.0], "score")[2].startswith("| 3–4 | 2 |")
    assert len(spread([], "score")) == 12
