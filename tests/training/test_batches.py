import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st

from biasline.params import Train
from biasline.training.batches import BalancedPlan, Plan, Rows, cut, learning_rate_factor


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 3), st.integers(0, 4))
def test_every_epoch_sees_every_row_once(rows, batch_size, seed, epoch):
    plan = Plan(rows, batch_size, 1, seed)
    per_epoch = plan.steps_per_epoch
    seen = [index for step in range(epoch * per_epoch, (epoch + 1) * per_epoch) for index in plan.indices(step)]
    assert sorted(seen) == list(range(rows))


def test_epochs_differ_in_order_and_repeat_with_the_seed():
    plan = Plan(50, 50, 2, 7)
    assert plan.indices(0) != plan.indices(1)
    assert plan.indices(1) == Plan(50, 50, 9, 7).indices(1)
    assert plan.indices(0) != Plan(50, 50, 2, 8).indices(0)


@pytest.mark.parametrize(
    ("rows", "epochs", "min_steps", "steps"), [(100, 3, 1, 12), (100, 3, 40, 40), (97, 1, 1, 4), (100, 0.5, 1, 2)]
)
def test_epochs_are_lengthened_to_min_steps(rows, epochs, min_steps, steps):
    assert Plan.of(rows, Train(epochs=epochs, min_steps=min_steps, batch_size=32)).total_steps == steps


@pytest.mark.parametrize(
    ("rows", "steps"), [(300, 400), (5_000, 12 * 157), (6_000, 2_250), (10_000, 2_250), (66_349, 3 * 2_074)]
)
def test_epochs_that_are_left_out_go_by_the_rows(rows, steps):
    assert Plan.of(rows, Train()).total_steps == steps
    assert Plan.of(rows, Train(epochs=1, min_steps=1)).total_steps == -(-rows // 32)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_climbs_then_falls(schedule):
    factors = [learning_rate_factor(step, 100, 0.1, schedule) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors[9:]))
    assert factors[-1] == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=0.02))


CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 60), max_size=9).map(sorted), st.integers(1, 200))
def test_rows_are_cut_into_passes_at_the_least_cost(lengths, most):
    pieces = cut(lengths, most, CPU)
    assert [index for piece in pieces for index in range(len(lengths))[piece]] == list(range(len(lengths)))

    def cost(pieces):
        """Padded tokens and 32 a pass; infinite for a pass of several rows that is too large."""
        sizes = [len(piece) * max(piece) for piece in pieces]
        fits = all(size <= most or len(piece) == 1 for size, piece in zip(sizes, pieces, strict=True))
        return sum(sizes) + 32 * len(pieces) if fits else float("inf")

    every = []
    for cuts in itertools.product([False, True], repeat=max(0, len(lengths) - 1)):
        ends = [0, *(place + 1 for place, is_cut in enumerate(cuts) if is_cut), len(lengths)]
        every.append(cost([lengths[first:last] for first, last in itertools.pairwise(ends)]) if lengths else 0)
    assert cost([lengths[piece] for piece in pieces]) == min(every)


def test_rows_are_read_from_the_file_as_they_are(tmp_path):
    """In several chunks, with labels per token or per row; nothing is copied."""
    parts = [
        Dataset.from_dict(
            {
                "row": range(first, first + count),
                "input_ids": [list(range(number)) for number in range(first, first + count)],
                "labels": [number % 3 for number in range(first, first + count)],
            }
        )
        for first, count in ((1, 4), (5, 1), (6, 3))
    ]
    whole = concatenate_datasets(parts)
    rows = Rows(whole)
    assert len(rows) == 8 and rows.lengths.tolist() == list(range(1, 9))
    for index, expected in enumerate(whole):
        found = rows[index]
        assert found["input_ids"].tolist() == expected["input_ids"]
        assert (found["row"], found["labels"]) == (expected["row"], expected["labels"])
    assert rows.by_length([7, 0, 3]) == [0, 3, 7]
    whole.save_to_disk(str(tmp_path / "set"))
    read = Rows(Dataset.load_from_disk(str(tmp_path / "set")))
    assert not read[3]["input_ids"].flags.owndata and np.array_equal(read[3]["input_ids"], rows[3]["input_ids"])


def test_an_empty_set_has_no_rows():
    empty = Dataset.from_dict({"row": [1], "input_ids": [[1]], "labels": [[1]]}).select([])
    assert len(Rows(empty)) == 0


@pytest.mark.parametrize(("epochs", "steps"), [(1.1, 110), (2.2, 220), (0.07, 7), (0.071, 8)])
def test_parts_of_an_epoch_are_not_rounded_up_by_a_hair(epochs, steps):
    assert Plan.of(800, Train(batch_size=8, epochs=epochs, min_steps=1)).total_steps == steps


def test_groups_have_the_same_part_and_their_rows_come_in_turn():
    groups = (tuple(range(10)), (10,), tuple(range(11, 14)))
    plan = BalancedPlan(rows=14, batch_size=4, total_steps=30, seed=3, groups=groups)
    drawn = [row for step in range(30) for row in plan.indices(step)]
    assert drawn == [row for step in range(30) for row in plan.indices(step)]
    for start in range(0, 120, 3):
        assert [sum(row in group for row in drawn[start : start + 3]) for group in groups] == [1, 1, 1]
    first = [row for row in drawn if row in groups[0]]
    assert sorted(first[:10]) == list(groups[0]) == sorted(first[10:20]) and first[:10] != first[10:20]
    assert drawn[:3] != drawn[3:6] or drawn[:3] != drawn[6:9]
    other = BalancedPlan(rows=14, batch_size=4, total_steps=30, seed=4, groups=groups)
    assert [row for step in range(30) for row in other.indices(step)] != drawn
