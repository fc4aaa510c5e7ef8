import json

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate


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
    ("metric", "told"), [("bleu", "no score of single answers"), ("brif", "brif is no metric of this task")]
)
def test_a_metric_that_models_cannot_be_compared_by_is_refused(trained, workspace, metric, told):
    task, place = trained
    (workspace / "custom").mkdir()
    (workspace / "custom/own.py").write_text("def brief(row):\n    return 1\n")
    with pytest.raises(BiaslineError, match=told):
        evaluate(with_gate(task, metric, metrics="custom/own.py"), place)
