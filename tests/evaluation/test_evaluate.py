import json

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.registry.gates import Shown, judge
from biasline.tokens.sets import tokenize


def test_metrics_have_both_models_on_the_same_rows(trained):
    _, place = trained
    metrics = json.loads(place.metrics.read_text())
    predictions = pl.read_parquet(place.predictions)
    assert metrics["rows"] == predictions.height == pl.read_parquet(place.split("test")).height
    assert {"exact_match", "exact_match_low", "exact_match_high"} <= set(metrics["base"]) == set(metrics["tuned"])
    for model in ("base", "tuned"):
        exact = [answer == output.strip() for answer, output in predictions.select(model, "output").rows()]
        assert predictions[f"{model}_exact"].to_list() == exact
        assert metrics[model]["exact_match"] == pytest.approx(sum(exact) / len(exact), abs=1e-6)
    assert metrics["tuned"]["response_perplexity"] < metrics["base"]["response_perplexity"]


def test_evaluating_again_gives_the_same_bytes(trained):
    task, place = trained
    before = {path.name: path.read_bytes() for path in place.evaluation.rglob("*") if path.is_file()}
    evaluate(task, place)
    assert {path.name: path.read_bytes() for path in place.evaluation.rglob("*") if path.is_file()} == before
    assert set(before) == {
        "metrics.json",
        "predictions.parquet",
        "slices.csv",
        "bias_change.csv",
        "samples.md",
        "card.md",
    }


def test_the_card_tells_numbers_data_base_and_how_to_load(trained):
    _, place = trained
    card = place.card.read_text(encoding="utf-8")
    metrics, report = json.loads(place.metrics.read_text()), json.loads(place.train_report.read_text())
    for part in (f"{metrics['tuned']['exact_match']:.3f}", report["fingerprint"], "tiny-bloom", "skill = "):
        assert part in card
    assert 'load_model("models:/biasline-small@champion")' in card


def test_bias_change_names_layers_and_roles(trained):
    change = pl.read_csv(trained[1].bias_change)
    assert {"query", "mlp_in", "norm"} <= set(change["role"])
    assert (change["change"] > 0).all()


def test_a_slice_column_that_is_absent_is_told(trained):
    task, place = trained
    asked = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"slices": ("topic",)})})
    with pytest.raises(BiaslineError, match=r"no column 'topic' in the data; it has: .*skill"):
        evaluate(asked, place)


def test_a_missing_delta_is_told(trained):
    task, place = trained
    place.delta.unlink()
    with pytest.raises(BiaslineError, match="no delta there"):
        evaluate(task, place)


def with_gate(task, metric, **evaluate):
    gates = task.gates.model_copy(update={"metric": metric})
    return task.model_copy(update={"gates": gates, "evaluate": task.evaluate.model_copy(update=evaluate)})


def test_a_projects_own_metric_decides(trained, workspace):
    task, place = trained
    (workspace / "custom").mkdir()
    (workspace / "custom/own.py").write_text('def brief(row):\n    return 2.0 - len(row["answer"]) / 100\n')
    told = evaluate(with_gate(task, "brief", metrics="custom/own.py"), place).told
    metrics = json.loads(place.metrics.read_text())
    assert metrics["metric"] == metrics["sliced_by"] == "brief" and told.startswith("brief on")
    assert metrics["tuned"]["brief_low"] <= metrics["tuned"]["brief"] <= metrics["tuned"]["brief_high"]
    assert set(metrics["gain"]) == {"brief", "brief_low", "brief_high"}
    answers = pl.read_parquet(place.predictions)
    assert answers["tuned_brief"].mean() == pytest.approx(metrics["tuned"]["brief"], abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "told"), [("chrf", "no score of single answers"), ("brif", "brif is no metric of this task")]
)
def test_a_metric_that_models_cannot_be_compared_by_is_refused(trained, workspace, metric, told):
    task, place = trained
    (workspace / "custom").mkdir()
    (workspace / "custom/own.py").write_text("def brief(row):\n    return 1\n")
    with pytest.raises(BiaslineError, match=told):
        evaluate(with_gate(task, metric, metrics="custom/own.py"), place)


def test_open_answers_are_judged_row_by_row_by_their_likelihood(trained, workspace, capsys):
    """The same model on longer right answers: the line, the card and the slices show what moves."""
    task, place = trained
    for split in ("test",):
        frame = pl.read_parquet(place.split(split))
        longer = pl.col("output") + pl.format(" and then {} more things were said of it on that day", "row")
        frame.with_columns(longer).write_parquet(place.split(split))
    tokenize(task, place)
    line = evaluate(task, place).told
    metrics = json.loads(place.metrics.read_text())
    assert metrics["metric"] == metrics["sliced_by"] == "response_log_likelihood"
    base, tuned = (metrics[who]["response_log_likelihood"] for who in ("base", "tuned"))
    frame = pl.read_parquet(place.predictions)
    assert tuned == pytest.approx((-frame["tuned_nll"] / frame["tokens"]).mean(), abs=1e-6)
    assert metrics["gain"]["response_log_likelihood"] == pytest.approx(tuned - base, abs=1e-5)
    assert line.startswith(
        f"response log likelihood on {frame.height} held-out rows: base {base:.3f}, tuned {tuned:.3f}"
    )
    assert "; ROUGE-L 0." in line
    assert "judged by response log likelihood: answers are open: the references have" in capsys.readouterr().out
    card = place.card.read_text()
    assert "| | response log likelihood | exact match |" in card
    assert "Judged by response log likelihood: answers are open" in card
    slices = pl.read_csv(place.slices)
    assert (slices["tuned"] < 0).all() and (slices["tuned_low"] <= slices["tuned"]).all()
    verdict = judge(task, Shown("version 1", metrics, frame, {"quarantine_rate": 0.0, "rows": 1}))
    assert verdict.metric == "response_log_likelihood"
    [floor] = [gate for gate in verdict.gates if gate.name == "floor"]
    assert floor.passed and "no natural floor" in floor.told


def test_progress_ends_with_the_work(trained, monkeypatch):
    """Every long part is in the total: at the end all of it is done, and not before."""
    from biasline.progress import Progress

    task, place = trained
    seen = []
    monkeypatch.setattr(Progress, "at", lambda self, done, note="": seen.append((done, self.total, note)))
    evaluate(task, place)
    assert [done == total for done, total, _ in seen] == [False] * (len(seen) - 1) + [True]
    assert len({note.rpartition(" of the ")[0] for *_, note in seen}) == 3  # answers, latency, likelihoods
    assert {note.rpartition(" of the ")[2] for *_, note in seen} == {"base model", "tuned model"}


def test_the_card_says_what_training_rows_lost(trained):
    task, place = trained
    short = task.model_copy(update={"tokens": task.tokens.model_copy(update={"max_length": 28})})
    tokenize(short, place)
    evaluate(short, place)
    train = json.loads((place.tokens / "summary.json").read_text())["splits"]["train"]
    left_out = f"{len(train['rejected_rows'])} left out, since their answer is too long or has no token"
    lost = f"Of the training rows, in 28 tokens: {left_out}"
    assert train["rejected_rows"] and lost in place.card.read_text()
