"""A look at rows of users: what is read, what is held against what, and the page."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.serving.traffic import SCHEMA
from biasline.watching.page import draw, page
from biasline.watching.requests import Asked, answered_by, evaluated, of_file, of_traffic, said
from biasline.watching.watch import Reading, look, recent

NOW = datetime(2026, 3, 8, tzinfo=UTC)
LOOK = {"level": 0.01, "tenants_rate": 0.1, "near": 0.8}


def asked(seed, rows=400, good=0.5, tenants=(), answers=None, words="a fine dull film with music"):
    """Rows of a classification over a week."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(words.split(), rng.integers(4, 12))) + f" {number}" for number in range(rows)]
    labels = np.where(rng.random(rows) < good, "good", "bad")
    if answers is None:
        answers = [{"label": str(label), "probability": float(rng.beta(8, 2))} for label in labels]
    owners = [tenants[number % len(tenants)] if tenants else "" for number in range(rows)]
    at = [NOW - timedelta(days=float(day)) for day in rng.random(rows) * 7]
    return Asked(at, owners, texts, answers, [None] * rows, [""] * rows)


def report(before, now, reading=Reading(), **more):  # noqa: B008
    return look(("mood", "3", "f" * 16), before, now, reading, **{**LOOK, **more})


def test_a_quiet_week_is_quiet_and_told_by_day(tmp_path):
    found = report(asked(1), asked(2))
    assert not found.alarms and found.rows == found.before == 400
    assert [check.name for check in found.checks] == [
        "labels given",
        "how sure the model is",
        "length of texts",
        "empty texts",
        "texts, by their characters",
    ]
    assert 7 <= len(found.by_day) <= 8 and sum(day.rows for day in found.by_day) == 400
    assert {name for day in found.by_day for name in day.said} == {"good", "bad"}
    assert draw(found, tmp_path / "days.png") and (tmp_path / "days.png").stat().st_size > 5_000
    text = page(found, picture=True)
    assert (
        text.startswith("# biasline-mood version 3: quiet\n")
        and "![rows, lengths and answers by day](days.png)" in text
    )
    assert json.loads(json.dumps(found.as_data))["alarms"] is False


def test_what_changed_is_named():
    found = report(asked(1), asked(2, good=0.75, words="ein guter langer film mit musik und mehr"))
    names = {check.name for check in found.checks if check.alarms}
    assert names >= {"labels given", "texts, by their characters"}
    text = page(found, picture=False)
    assert f"version 3: {len(names)} changed" in text and "| **changed** |" in text and "days.png" not in text


def test_texts_as_answers_are_looked_at_by_length_and_end():
    words = [f"answer {number % 7}" for number in range(300)]
    reading = Reading(lengths=lambda texts: np.array([len(text.split()) for text in texts]), longest=20)
    endless = [*(words[:200]), *["on and on " * 10] * 100]
    before, now = asked(1, 300, answers=words), asked(2, 300, answers=endless)
    found = report(before, now, reading)
    assert {check.name for check in found.checks if check.alarms} == {
        "length of answers",
        "answers that come to no end",
    }
    assert [day.said for day in found.by_day] == [{}] * len(found.by_day)


def test_answers_that_refuse_are_seen_in_two_languages():
    words = [f"answer {number % 7}, I cannot say more" for number in range(300)]
    refused = ["I'm sorry, but I can’t help with that.", "很抱歉，我无法回答这个问题。", "As an AI I do not know."] * 40
    before, now = asked(1, 300, answers=words), asked(2, 300, answers=[*words[:180], *refused])
    found = {check.name: check for check in report(before, now).checks}
    assert found["answers that refuse"].alarms and found["answers that refuse"].distance == pytest.approx(0.4)
    quiet = {check.name: check for check in report(before, asked(2, 300, answers=words)).checks}
    assert quiet["answers that refuse"].distance == 0 and not quiet["answers that refuse"].alarms


def test_unknown_tokens_vectors_and_copies_of_training_rows():
    before, now = asked(1), asked(2)
    reading = Reading(
        unknown=lambda texts: np.array([float(text in now.texts) for text in texts]),
        vectors=lambda texts: np.random.default_rng(len(texts[0])).normal(size=(200, 8)),
        trained=now.texts[:40],
    )
    found = report(before, now, reading)
    assert {check.name for check in found.checks if check.alarms} == {"texts with tokens that the base does not know"}
    assert found.near_training == pytest.approx(0.1, abs=0.02)
    assert "texts, by the frozen base's vectors" in page(found, picture=False)


def test_one_tenant_that_went_wrong_is_named_alone():
    names = [f"shop {number}" for number in range(30)]
    before, now = asked(1, 6_000, tenants=names), asked(2, 6_000, tenants=[*names, "new"])
    for place, owner in enumerate(now.tenants):
        if owner == "shop 7":
            now.answers[place]["label"] = "good"
    found = report(before, now)
    assert list(found.tenants) == ["shop 7"] and found.alarms
    assert (found.tenants_tested, found.tenants_few) == (30, 1)
    assert "| shop 7 | labels given | " in page(found, picture=False)


def test_right_answers_that_came_along_are_counted():
    now = asked(2, 100)
    now.right[:10] = now.answers[:10]
    now.right[10] = {"label": "neither"}
    assert report(asked(1), now).right == (10 / 11, 11)


def test_answers_that_are_right_less_often_alarm():
    before, now = asked(1), asked(2)
    for rows, wrong in ((before, 0.02), (now, 0.4)):
        for place, answer in enumerate(rows.answers):
            rows.right[place] = {"label": "neither"} if place < wrong * len(rows) else answer
    found = report(before, now)
    assert [check.name for check in found.checks if check.alarms] == ["answers that are right"]
    assert found.verdict == "1 changed" and report(before, before).verdict == "quiet"


def test_few_rows_are_not_called_quiet():
    found = report(asked(1), asked(2, 6))
    assert not found.alarms and not found.tells and found.verdict == "too few rows to tell"
    assert "too few rows to tell" in page(found, picture=False)


def test_only_recent_rows_are_looked_at():
    rows = asked(1)
    assert len(recent(rows, 0, NOW)) == 400
    few = recent(rows, 1.0, NOW)
    assert 20 < len(few) < 100 and min(few.at) >= NOW - timedelta(days=1)


@pytest.fixture
def traffic(tmp_path):
    folder = tmp_path / "traffic"
    folder.mkdir()

    def write(name, task="mood", texts=True, rows=3):
        told = [
            {
                "at": NOW,
                "request": "r",
                "task": task,
                "tenant": "",
                "fingerprint": "f" * 16,
                "asked": json.dumps({"text": f"row {number}", "text_pair": None}) if texts else None,
                "answer": json.dumps({"label": "good", "probability": 0.9}) if texts else None,
            }
            for number in range(rows)
        ]
        pl.DataFrame(told, schema=SCHEMA).write_parquet(folder / f"{name}.parquet")

    return folder, write


def test_traffic_is_read_for_the_task_alone(traffic):
    folder, write = traffic
    write("one"), write("two", task="other"), write("three", texts=False)
    rows = of_traffic(folder, "mood", "classification")
    assert rows.texts == ["row 0", "row 1", "row 2"] and rows.answers[0] == {"label": "good", "probability": 0.9}
    assert rows.fingerprints == ["f" * 16] * 3 and rows.at[0] == NOW


def test_traffic_that_says_nothing_is_told(traffic, tmp_path):
    folder, write = traffic
    with pytest.raises(BiaslineError, match="no row of mood"):
        of_traffic(folder, "mood", "classification")
    write("one", texts=False)
    with pytest.raises(BiaslineError, match="3 rows of mood, and none has its text → serve with traffic_texts: true"):
        of_traffic(folder, "mood", "classification")
    (folder / "odd.parquet").write_bytes(b"PAR1 half of a file")
    with pytest.raises(BiaslineError, match=r"odd.parquet: not a file of a server's traffic"):
        of_traffic(folder, "mood", "classification")
    with pytest.raises(BiaslineError, match="no such folder"):
        of_traffic(tmp_path / "none", "mood", "classification")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_of_rows_is_read(tmp_path, suffix):
    rows = [{"at": "2026-03-01T10:00:00", "text": "fine", "answer": "good", "right": "bad", "shop": "one"}] * 2
    path = tmp_path / f"rows.{suffix}"
    frame = pl.DataFrame(rows)
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[suffix](path)
    found = of_file(path, "classification", "shop")
    assert (
        found.texts == ["fine"] * 2 and found.answers[0] == {"label": "good"} and found.right == [{"label": "bad"}] * 2
    )
    assert found.tenants == ["one"] * 2 and found.at[0] == datetime(2026, 3, 1, 10)
    assert report(asked(1), found).right == (0.0, 2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "empty"),
        ('{"sentence": "x"}\n', "no column 'text' beside 'sentence'"),
        ('{"text": "x", "at": "noon"}\n', "row 1: 'noon' is no time"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path, content, told):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(BiaslineError, match=told):
        of_file(path, "classification", "")
    with pytest.raises(BiaslineError, match="no such file"):
        of_file(tmp_path / "none.csv", "classification", "")


def test_the_evaluation_has_its_answers_as_a_server_gives_them():
    frame = pl.DataFrame(
        {"text": ["fine"], "label": ["good"], "tuned": ["bad"], "probability": [0.75], "shop": ["one"]}
    )
    found = evaluated("classification", frame, "shop")
    assert found.answers == [{"label": "bad", "probability": 0.75}] and found.tenants == ["one"]


@pytest.mark.parametrize(
    ("kind", "row", "answer", "right"),
    [
        ("classification", {"text": "x", "answer": "true", "right": "null"}, {"label": "true"}, {"label": "null"}),
        ("classification", {"text": "x", "answer": "", "right": "", "at": ""}, None, None),
        ("regression", {"text": "x", "answer": 9.9, "right": "3"}, {"score": 9.9}, {"score": 3.0}),
        (
            "multilabel",
            {"text": "x", "answer": ["b", "a"], "right": "a|b"},
            {"labels": ["b", "a"]},
            {"labels": ["a", "b"]},
        ),
        ("tagging", {"text": "x y", "answer": "O B-X", "right": None}, {"tags": ["O", "B-X"]}, None),
        ("instruction", {"instruction": "x", "answer": 5, "right": None}, "5", None),
    ],
)
def test_answers_are_read_as_their_kind_has_them(tmp_path, kind, row, answer, right):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    found = of_file(path, kind, "")
    assert found.answers == [answer] and found.right == [right] and found.at == [None]
    if kind == "multilabel":
        assert said(found.answers[0]) == said(found.right[0])


def test_a_score_that_is_none_is_told(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,answer\nfine,3.5\nfine,high\n")
    with pytest.raises(BiaslineError, match="rows.csv: row 2: 'high' is no score"):
        of_file(path, "regression", "")


def test_tenants_are_named_as_serving_names_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": "x", "shop": name}) + "\n" for name in (0, 7.0, " one ", None)))
    assert of_file(path, "classification", "shop").tenants == ["0", "7", "one", ""]


def test_words_are_told_apart_by_the_words_alone(traffic):
    folder, _ = traffic
    told = {"at": NOW, "task": "names", "asked": json.dumps({"text": "Berlin, with Ada."}), "answer": "{}"}
    pl.DataFrame([told], schema=SCHEMA).write_parquet(folder / "one.parquet")
    assert of_traffic(folder, "names", "tagging").texts == ["Berlin , with Ada ."]


def test_answers_of_another_training_do_not_count():
    rows = replace(asked(2, 3), fingerprints=["", "a", "b"])
    assert [one is None for one in answered_by(rows, "a").answers] == [False, False, True]
