import json
from pathlib import Path

import polars as pl
import pytest

from biasline.bases.limits import Limits
from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.evaluation.few_shot import Examples
from biasline.registry.gates import Shown, judge
from biasline.tokens.saved import IGNORED, read_token_set

ROWS = [[1, 5, 6, 2], [1, 7, 2], [1, 8, 9, 10, 11, 12, 2], [1, 13, 14, 2], [1, 15, 2], [1, *range(20, 40), 2]]


def test_examples_are_whole_rows_of_the_shorter_half_behind_one_beginning():
    found = Examples(ROWS, 2, 0, [1])
    assert found.count == 2 and found.ids[0] == 1 and found.ids.count(1) == 1 and found.ids.count(2) == 2
    short = [[5, 6, 2], [7, 2], [15, 2]]
    assert found.ids[1:] in [one + other for one in short for other in short if one != other]
    assert Examples(ROWS, 2, 0, [1]).ids == found.ids
    assert len({tuple(Examples(ROWS, 2, seed, [1]).ids) for seed in range(20)}) > 1


def test_more_examples_than_rows_are_all_there_are():
    found = Examples(ROWS[:2], 5, 0, [])
    assert found.count == 2 and sorted(found.ids) == sorted(ROWS[0] + ROWS[1])


def test_prompts_and_rows_stand_behind_them_and_nothing_of_them_is_supervised():
    found = Examples(ROWS[:1], 1, 0, [1])
    assert found.prompts([[1, 50], [51]]) == [[1, 5, 6, 2, 50], [1, 5, 6, 2, 51]]
    columns = found.columns({"row": [3], "input_ids": [[1, 50, 51]], "labels": [[IGNORED, IGNORED, 51]]}, IGNORED)
    assert columns == {"row": [3], "input_ids": [[1, 5, 6, 2, 50, 51]], "labels": [[IGNORED] * 5 + [51]]}


def test_a_base_without_room_for_them_is_told():
    found = Examples(ROWS, 2, 0, [1])
    found.check(Limits(None, len(found.ids) + 10, None), 6, 4)
    with pytest.raises(BiaslineError, match=r"evaluate.examples: 2 training rows .* the base has 12 positions → show"):
        found.check(Limits(None, 12, None), 6, 4)
    found.check(Limits(None, None, None), 10**6, 4)


def test_the_untuned_base_with_examples_is_a_rival_of_the_tuned_model(trained):
    task, place = trained
    before = json.loads(place.metrics.read_text())
    asked = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"examples": 3})})
    told = evaluate(asked, place).told
    metrics, frame = json.loads(place.metrics.read_text()), pl.read_parquet(place.predictions)
    assert metrics["base"] == before["base"] and metrics["tuned"] == before["tuned"]  # nothing else has changed
    assert set(metrics["probe"]) == set(metrics["base"]) and metrics["probe"] != metrics["base"]
    assert {"probe", "probe_exact", "probe_nll"} <= set(frame.columns)
    assert not {"probe", "over_examples"} & set(before)
    name = metrics["metric"]
    assert metrics["over_examples"][name] == pytest.approx(metrics["tuned"][name] - metrics["probe"][name], abs=2e-3)
    assert "with examples " in told
    assert "| untuned base with examples in its prompt |" in place.card.read_text(encoding="utf-8")
    gates = judge(asked, Shown("it", metrics, frame, {"quarantine_rate": 0.0, "rows": 1})).gates
    [gate] = [gate for gate in gates if gate.name == "better than the untuned base with examples"]
    assert gate.numbers["mean"] == pytest.approx(metrics["over_examples"][name], abs=1e-6)


def test_its_likelihoods_are_those_of_the_rows_behind_the_examples(trained):
    """By hand: the loss of a row's answer, in one pass over examples and row."""
    import torch

    from biasline.bases.load import load_causal_lm
    from biasline.bases.pin import verified_folder

    task, place = trained
    asked = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"examples": 2})})
    evaluate(asked, place)
    frame, rows = pl.read_parquet(place.predictions), read_token_set(place, "test")
    shown = Examples(read_token_set(place, "train")["input_ids"], 2, task.evaluate.seed, [])
    model = load_causal_lm(*verified_folder(Path(task.base)), task.load)
    row = rows[0]
    ids = torch.tensor([shown.ids + row["input_ids"]])
    with torch.no_grad():
        chances = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    labels = [IGNORED] * len(shown.ids) + row["labels"]
    expected = -sum(float(chances[place - 1, label]) for place, label in enumerate(labels) if label != IGNORED)
    assert frame.filter(row=row["row"])["probe_nll"].item() == pytest.approx(expected, rel=1e-4)
