import numpy as np
import polars as pl
import pytest
import torch

from biasline.evaluation.generate import Answer
from biasline.evaluation.scoring import LENGTH, Scored, score_likelihood, slice_table, with_lengths
from biasline.metrics.table import find_metric
from biasline.tokens.saved import IGNORED

EXACT = find_metric("instruction", "exact_match")


def test_likelihood_per_row_is_that_of_the_row_alone(bloom):
    columns = {
        "row": [1, 2, 3],
        "input_ids": [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16]],
        "labels": [[IGNORED, IGNORED, 7, 8, 9], [IGNORED, IGNORED, 12], [IGNORED, 14, 15, 16]],
    }
    nll, tokens, hits = score_likelihood(bloom, columns, 3, 2)
    assert tokens.tolist() == [3, 1, 3]
    for index in range(3):
        ids, labels = torch.tensor([columns["input_ids"][index]]), torch.tensor([columns["labels"][index]])
        with torch.no_grad():
            output = bloom(input_ids=ids, labels=labels)
        assert nll[index] == pytest.approx(output.loss.item() * tokens[index], rel=1e-5)
        predicted = output.logits[0, :-1].argmax(-1)
        assert hits[index] == int((predicted == labels[0, 1:])[labels[0, 1:] != IGNORED].sum())


def test_metrics_weigh_tokens_not_rows():
    answers = [Answer("a", True), Answer("", False)]
    scored = Scored("instruction", answers, ["a ", "b"], np.array([1.0, 3.0]), np.array([1, 3]), np.array([1, 0]))
    metrics = scored.measured.values
    assert metrics["exact_match"] == 0.5
    assert metrics["response_perplexity"] == pytest.approx(np.e, rel=1e-5)
    assert metrics["token_accuracy"] == 0.25
    assert metrics["empty_rate"] == metrics["never_ending_rate"] == 0.5
    assert metrics["exact_match_low"] < 0.5 < metrics["exact_match_high"]


def test_slices_are_scored_apart():
    frame = pl.DataFrame(
        {"skill": ["b", "a", "b"], "base_exact": [False, False, True], "tuned_exact": [True, False, True]}
    )
    rows = slice_table(frame, ("skill",), EXACT, "instruction").select("slice", "value", "rows", "base", "tuned").rows()
    assert rows == [("skill", "a", 1, 0.0, 0.0), ("skill", "b", 2, 0.5, 1.0)]
    assert slice_table(frame, (), EXACT, "instruction").height == 0


def test_every_task_has_slices_by_length():
    frame = pl.DataFrame({"instruction": ["a" * n for n in range(1, 10)], "input": [None] * 9})
    values = with_lengths(frame, ("instruction", "input"))[LENGTH].to_list()
    assert values == ["1: up to 3 characters"] * 3 + ["2: up to 6 characters"] * 3 + ["3: more"] * 3
    own = frame.with_columns(pl.lit("mine").alias(LENGTH))
    assert with_lengths(own, ("instruction",)).equals(own)
