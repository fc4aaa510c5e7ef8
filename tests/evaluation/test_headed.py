import json

import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from biasline.evaluation.classify import probabilities, probed
from biasline.evaluation.headed import Headed
from biasline.evaluation.tuned import Tuned
from biasline.progress import Progress


def bert():
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=100)).eval()


@pytest.fixture
def headed():
    torch.manual_seed(0)
    model, other = bert(), bert()
    rows = [{"input_ids": [5 + n % 7, 20 + 30 * (n % 2)], "labels": n % 2} for n in range(30)]
    return Headed(model, lambda: Tuned(other), rows[:20], rows[20:], (0, 8), pl.DataFrame())


def test_the_probe_sees_the_base_and_the_answers_are_the_tuned_models(headed):
    seen = []

    def of(function):
        def called(model, *arguments, **more):
            seen.append(model)
            return function(model, *arguments, **more)

        return called

    asked = headed.asked(of(probed), of(probabilities))
    assert seen == [headed.model, headed.tuned().model] and seen[0] is not seen[1]
    assert asked.probe.tolist() == [row["labels"] for row in headed.rows]
    assert asked.tuned == pytest.approx(probabilities(headed.tuned().model, headed.rows, 0, 8))
    assert set(asked.timed) == {"base", "tuned"} and min(asked.timed.values()) > 0


def test_progress_ends_with_the_work(headed, monkeypatch):
    seen = []
    monkeypatch.setattr(Progress, "at", lambda self, done, note="": seen.append((done, self.total, note)))
    headed.asked(probed, probabilities)
    assert [done == total for done, total, _ in seen] == [False] * (len(seen) - 1) + [True]
    assert {note for *_, note in seen} == {"head alone on the frozen base", "latency", "tuned model"}


@pytest.mark.e2e  # whole stages
@pytest.mark.parametrize("kind", ["classification", pytest.param("regression", marks=pytest.mark.slow)])
def test_kinds_with_a_head_are_evaluated(workspace, kind):
    from tests.conftest import run_other

    task, place = run_other(workspace, kind)
    metrics = json.loads(place.metrics.read_text())
    assert set(metrics["base"]) <= set(metrics["tuned"]) and set(metrics["probe"]) == set(metrics["base"])
    labels = kind == "classification"
    assert metrics.get("positive_label") == ("low" if labels else None)
    assert [path.name for path in place.confusion.iterdir()] == (["labels.csv"] if labels else [])
    name = "accuracy" if labels else "squared_error_saved"
    assert set(metrics["gain"]) == {name, f"{name}_low", f"{name}_high"}
    samples = place.samples.read_text()
    assert (" ✓ |" in samples or " ✗ |" in samples) is labels
    told = (
        ("| majority class |", "; labels high, low.") if labels else ("| training rows' mean |", "scores in units of")
    )
    assert all(part in place.card.read_text() for part in (*told, "| head alone on the frozen base |"))
