"""A canary: a model answers some rows of its evaluation again before anyone else's."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from biasline.errors import BiaslineError
from biasline.kinds.answering import find_answering
from biasline.serving.engine.bases import Held
from biasline.serving.engine.stand_in import drawing
from biasline.serving.engine.ticket import Ticket
from biasline.serving.package_check import alike
from biasline.serving.predictor import asked_rows

# Rounding turns a near tie the other way now and then; another delta, base or template changes nearly every answer.
_MOST_ODD = 0.25
# What a likelihood may be off, by the base's dtype: half precision rounds differently from one device to another.
_NEAR = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.05}
_AT_ONCE = 4  # rows of a pass that others wait for
_SECONDS = 300.0  # for all rows, beside the requests of others


def chosen_rows(predictions: pl.DataFrame, rows: int, column: str = "", of_each: int = 0) -> pl.DataFrame:
    """The first rows, and of a fleet some of each tenant besides.

    Args:
        predictions: test rows with the answers of an evaluation.
        rows: how many.
        column: of the tenants; empty where there are none.
        of_each: rows of each tenant.
    """
    first = predictions.head(rows)
    if not column or not of_each:
        return first
    further = predictions.group_by(column, maintain_order=True).head(of_each)
    return pl.concat([first, further.select(predictions.columns)]).unique("row", keep="first", maintain_order=True)


def check(held: Held, predictions: pl.DataFrame, answered: int) -> int:
    """Have a model answer rows, and hold the answers against those of its evaluation.

    Args:
        held: the model on its engine, where it answers among the rows of others.
        predictions: test rows with the answers of its evaluation.
        answered: of a model that writes, rows whose answers are written; all have their likelihood taken.

    Returns:
        rows that were compared.

    Raises:
        BiaslineError: naming the first row that is answered otherwise, where more are than rounding explains.
    """
    with Ticket(_SECONDS).used():
        return _check(held, predictions, answered)


def _check(held: Held, predictions: pl.DataFrame, answered: int) -> int:
    task, predictor = held.package.task, held.predictor
    answering = find_answering(task.kind)
    found: list[_Compared] = []
    written = predictions if answering.learning.headed else predictions.head(answered)
    if not answering.is_drawn(task) and written.height:
        with drawing(task.evaluate.seed):
            answers = predictor(asked_rows(task, written))
        pairs = zip(written["row"], answers, answering.evaluated(written), strict=True)
        # A text may turn at a near tie of two tokens; its likelihood does not.
        found += [_Compared(*pair, same=_same(*pair[1:]), sure=answering.learning.headed) for pair in pairs]
    near = _NEAR[task.load.dtype]
    for row, given, evaluated in likelihoods(held, predictions):
        same = abs(given - evaluated) <= near * max(1.0, abs(evaluated))
        found.append(_Compared(row, given, evaluated, same, sure=True))
    if not found:
        raise BiaslineError("its evaluation has no row that it could answer again", "evaluate it on some rows")
    odd = [one for one in found if not one.same]
    way = "`biasline verify` holds its files against what was registered"
    if len(odd) > _MOST_ODD * len(found):
        first = odd[0]
        raise BiaslineError(
            f"it answers {len(odd)} of {len(found)} test rows otherwise than its evaluation: row {first.row}: "
            f"{first.given!r}, evaluated {first.evaluated!r}",
            way,
        )
    if held.tenants is not None:
        owners = dict(zip(predictions["row"], predictor.owners(predictions.to_dicts()), strict=True))
        right = {owners[one.row] for one in found if one.sure and one.same}
        if wrong := sorted({owners[one.row] for one in odd if one.sure} - right):
            raise BiaslineError(f"tenant {wrong[0]!r}: its delta answers otherwise than in its evaluation", way)
    return len(found)


class _Compared(NamedTuple):
    """A row's answer, or its likelihood, now and in the evaluation."""

    row: int
    given: Any
    evaluated: Any
    same: bool
    sure: bool


def _same(given: Any, evaluated: Any) -> bool:
    """Whether two answers are the same; where two labels are as probable, either is."""
    if isinstance(given, dict) and isinstance(evaluated, dict) and {"label", "probability"} == given.keys():
        return alike(given["probability"], evaluated["probability"])
    return alike(given, evaluated)


def likelihoods(held: Held, predictions: pl.DataFrame) -> list[tuple[int, float, float]]:
    """Of a model that writes: the row, how unlikely its right answer is to it, and was in its evaluation."""
    answering = find_answering(held.package.task.kind)
    if answering.learning.headed or "tuned_nll" not in predictions.columns:
        return []
    rows = predictions.filter(pl.col("tuned_nll").is_not_null())
    parts = [_likelihood(held, rows[start : start + _AT_ONCE]) for start in range(0, rows.height, _AT_ONCE)]
    given = np.concatenate(parts).tolist() if parts else []
    return list(zip(rows["row"], given, rows["tuned_nll"], strict=True))


def _likelihood(held: Held, rows: pl.DataFrame) -> np.ndarray:
    """Of a few rows, by one pass of the model itself between those of others."""
    from biasline.evaluation.scoring import score_likelihood
    from biasline.tokens.answers import answer_columns

    columns = answer_columns(held.predictor.dialogue_encoder, rows)
    slots = dict(zip(rows["row"], _slots(held, rows), strict=True))
    # As they are put into a batch: the shortest first.
    order = sorted(range(len(columns["row"])), key=lambda place: len(columns["input_ids"][place]))
    columns = {name: [values[place] for place in order] for name, values in columns.items()}
    lane = held.lane

    def job() -> np.ndarray:
        with lane.bank.rows([slots[row] for row in columns["row"]]):
            return score_likelihood(lane.model, columns, lane.model.config.pad_token_id or 0, len(order))[0]

    began = time.perf_counter()
    found = dict(zip(columns["row"], held.engine.between(job).result(_SECONDS), strict=True))
    held.engine.give_way(time.perf_counter() - began)
    return np.array([found.get(row, np.nan) for row in rows["row"]])


def _slots(held: Held, rows: pl.DataFrame) -> Sequence[int]:
    tenants = held.tenants
    if tenants is None:
        return [held.slot] * rows.height
    return [tenants.slot(owner) for owner in held.predictor.owners(rows.to_dicts())]
