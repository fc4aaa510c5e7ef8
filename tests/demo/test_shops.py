"""The shops' rows: the same questions, worded by each shop in its own way."""

import json
from collections import defaultdict

from biasline.demo.shops import FEWEST, MOST, SHOPS, shops, to_jsonl


def test_no_two_shops_word_an_answer_alike():
    made = shops()
    assert len(made) == SHOPS and len({shop.name for shop in made}) == SHOPS
    assert len({shop.says("yes") for shop in made}) == SHOPS
    assert all(FEWEST <= shop.rows <= MOST for shop in made)
    assert sum(shop.rows < 50 for shop in made) > 10


def test_the_file_has_the_rows_of_each_and_is_the_same_each_time():
    made = shops()
    text = to_jsonl(made)
    assert text == to_jsonl(shops())
    by_shop = defaultdict(list)
    for row in map(json.loads, text.splitlines()):
        assert set(row) == {"shop", "instruction", "input", "output"}
        by_shop[row["shop"]].append(row)
    for shop in made:
        rows = by_shop[shop.name]
        assert len(rows) == shop.rows
        assert all(row["output"].endswith(shop.says("")) for row in rows)
        assert len({(row["instruction"], row["input"]) for row in rows}) == shop.rows
