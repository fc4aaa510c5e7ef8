"""`biasline watch`: what a server kept, beside the evaluation of what answered it."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from typer.testing import CliRunner

from biasline.cli import app
from biasline.registry import watch as room
from biasline.serving.traffic import SCHEMA
from biasline.tracking.store import experiment_id
from biasline.watching.requests import evaluated


@pytest.fixture
def asked(registered_small, trained, workspace, monkeypatch):
    """Ten times the test rows as a server keeps them, changed; what `biasline watch` says of them.

    There are fifteen, too few to tell anything, so the evaluation is taken to have had each of them twenty times.
    """
    client, record = registered_small

    def many(*given):
        found = evaluated(*given)
        return found.chosen([*range(len(found))] * 20)

    monkeypatch.setattr(room, "evaluated", many)
    predictions = pl.read_parquet(trained[1].predictions)

    def ask(change=lambda row: row, *options, at=None):
        rows, at = [], at or datetime.now(UTC)
        for number in range(10):
            for row in predictions.select("instruction", "input", "tuned").to_dicts():
                changed = change(dict(row))
                answer = changed.pop("tuned")
                moment = at - timedelta(hours=number * 12)
                told = {"at": moment, "task": "small", "tenant": "", "fingerprint": record.fingerprint}
                rows.append({**told, "asked": json.dumps(changed), "answer": answer})
        (workspace / "traffic").mkdir(exist_ok=True)
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(workspace / "traffic/one.parquet")
        return CliRunner().invoke(app, ["watch", "small@candidate", "--traffic", "traffic", *options])

    return ask, client, workspace


def test_the_same_rows_are_quiet_with_a_page_a_picture_and_a_run(asked):
    ask, client, workspace = asked
    said = ask()
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("biasline-small version 1: quiet, by ")
    folder = workspace / ".biasline/watch/small"
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.json", "days.png"}
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "# biasline-small version 1: quiet" in page and "length of answers" in page
    assert "answers that come to no end" in page and "nearly repeat a training row" in page
    [run] = client.search_runs([experiment_id(client, "small (watch)")])
    assert run.data.metrics["alarms"] == 0 and run.data.metrics["length_of_texts"] < 0.15
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"report.md", "report.json", "days.png"}


def test_longer_texts_and_answers_alarm(asked):
    ask, _, workspace = asked

    def longer(row):
        return {**row, "instruction": row["instruction"] * 3, "tuned": row["tuned"] * 2}

    (workspace / "here").mkdir()
    (workspace / "here/mine.txt").write_text("mine")
    said = ask(longer, "--json", "--out", str(workspace / "here"))
    assert said.exit_code == 1, said.output
    told = json.loads(said.stdout)
    assert told["alarms"] and (workspace / "here/report.md").is_file()
    assert (workspace / "here/mine.txt").read_text() == "mine"
    assert {check["name"] for check in told["checks"] if check["alarms"]} >= {"length of texts", "length of answers"}


@pytest.mark.slow
def test_the_frozen_base_is_asked_where_that_is_wanted(asked):
    ask, _, workspace = asked
    said = ask(lambda row: {**row, "instruction": "这是另一种语言。" + row["instruction"]}, "--embeddings", "100")
    assert said.exit_code == 1, said.output
    assert "texts, by the frozen base's vectors" in said.stdout


def test_what_cannot_be_told_ends_with_2(asked):
    ask, _, workspace = asked
    old = ask(at=datetime(2020, 1, 1, tzinfo=UTC))
    assert old.exit_code == 2 and "no row of the last 7 days → name more of them: --days 30" in old.stderr
    for options, told in (
        (["nothing@candidate", "--traffic", "traffic"], "no task"),
        (["small@champion", "--traffic", "traffic"], "champion"),
        (["small@candidate", "--rows", "none.csv"], "none.csv: no such file"),
        (["small@candidate", "--traffic", "traffic", "--out", "params.yaml"], "params.yaml: no folder"),
    ):
        said = CliRunner().invoke(app, ["watch", *options])
        assert said.exit_code == 2 and told in said.stderr, said.output
    said = CliRunner().invoke(app, ["watch", "small"])
    assert said.exit_code == 2 and "--traffic or --rows" in said.output


def test_too_few_rows_end_with_2(asked, workspace):
    ask, _, _ = asked
    (workspace / "few.csv").write_text("instruction,at\nhello,2099-01-01\nhi,\n")
    said = CliRunner().invoke(app, ["watch", "small@candidate", "--rows", "few.csv"])
    assert said.exit_code == 2 and "too few rows to tell, by 2 rows" in said.stdout
    text = (workspace / ".biasline/watch/small/report.md").read_text(encoding="utf-8")
    assert "1 rows say that they were asked in the future" in text and "1 rows do not say when" in text


def test_a_store_that_is_away_is_no_alarm(asked, monkeypatch):
    ask, _, _ = asked
    monkeypatch.setattr(room, "aliased", lambda *given: 1 / 0)
    said = ask()
    assert said.exit_code == 2 and "ZeroDivisionError" in said.stderr


def test_training_rows_of_another_model_are_not_taken_for_its_own(asked, monkeypatch):
    ask, _, workspace = asked
    (workspace / "data/small/tokens/summary.json").write_text("{}")
    said = ask()
    assert said.exit_code == 0
    page = (workspace / ".biasline/watch/small/report.md").read_text(encoding="utf-8")
    assert "copies of them were not looked for" in page and "nearly repeat" not in page
