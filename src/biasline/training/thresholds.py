"""From which probability on a label is given, where each label is judged by itself: chosen on the validation rows."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.training.batches import Rows
from biasline.training.loss import LabelSets
from biasline.training.outputs import outputs_and_labels

# Where nothing can be chosen: a label is given that is likelier than not.
EVEN = 0.5
_DIGITS, _LISTED = 6, 10


def chosen_thresholds(
    model: PretrainedModel, valid: Any, labels: Sequence[str], train: Train
) -> tuple[dict[str, str], list[str]]:
    """The threshold of each label, as JSON under `thresholds`, and notes on labels without one of their own.

    Args:
        model: the classifier, in eval mode.
        valid: the validation rows in tokens, each with 1 for every label that it has, else 0.
        labels: names in the order of the model's outputs.
        train: parameters of training, for the size of a forward pass.
    """
    rows = Rows(valid)
    if not len(rows):
        even = dict.fromkeys(labels, EVEN)
        note = f"there are no validation rows to choose thresholds on: each label is given from probability {EVEN:g} on"
        return {"thresholds": json.dumps(even, ensure_ascii=False)}, [note]
    outputs, flags = outputs_and_labels(model, rows, LabelSets(), train)
    given, held = 1 / (1 + np.exp(-outputs)), flags > 0
    found = {name: best_threshold(given[:, place], held[:, place]) for place, name in enumerate(labels)}
    unseen = [name for place, name in enumerate(labels) if not held[:, place].any()]
    notes = []
    if unseen:
        listed = ", ".join(map(repr, unseen[:_LISTED])) + (", …" if len(unseen) > _LISTED else "")
        notes.append(f"no validation row has the label {listed}: it is given from probability {EVEN:g} on")
    return {"thresholds": json.dumps(found, ensure_ascii=False)}, notes


def best_threshold(given: np.ndarray, held: np.ndarray) -> float:
    """The threshold of the highest F1 of one label; of several such the nearest to an even chance, then the lower.

    Args:
        given: the label's probability in each row, (rows,).
        held: whether the row has it, (rows,).
    """
    if not held.any():
        return EVEN
    known = np.unique(given)
    # Between two probabilities that rows have, all thresholds part the rows alike.
    tried = np.concatenate([[EVEN, known[0] / 2], (known[:-1] + known[1:]) / 2]).round(_DIGITS)
    order = np.argsort(given)
    # Of the rows from each place in this order on: how many, and how many of them have the label.
    right = np.concatenate([held[order][::-1].cumsum()[::-1], [0]])
    place = np.searchsorted(given[order], tried)
    f1 = 2 * right[place] / (len(given) - place + held.sum())
    best = tried[f1 == f1.max()]
    return float(min(best, key=lambda value: (round(abs(value - EVEN), _DIGITS), value)))
