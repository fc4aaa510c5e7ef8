import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.params import Train
from biasline.training.batches import Plan, learning_rate_factor


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


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_climbs_then_falls(schedule):
    factors = [learning_rate_factor(step, 100, 0.1, schedule) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert max(factors) == 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors[9:]))
    assert factors[-1] == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=0.02))
