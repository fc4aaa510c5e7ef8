"""Fair turns between owners."""

from hypothesis import given
from hypothesis import strategies as st

from biasline.serving.engine.fair import FairQueue

ITEMS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=40)


def filled(items):
    queue = FairQueue()
    for item in items:
        queue.put(item[0], item)
    return queue


class Most:
    """So much in one batch, and one item whatever it takes."""

    def __init__(self, most):
        self.left, self.none = most, True

    def __call__(self, item):
        fits = self.none or item[1] <= self.left
        if fits:
            self.none, self.left = False, self.left - item[1]
        return fits


def test_owners_take_turns():
    queue = filled([("a", number) for number in range(5)] + [("b", 0), ("c", 0), ("b", 1)])
    left = iter([True] * 6)
    assert queue.take(lambda item: next(left, False)) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("a", 2)]
    assert len(queue) == 2 and list(queue) == [("a", 3), ("a", 4)] and queue.first == ("a", 3)


def test_an_owner_whose_next_item_does_not_fit_lets_others_pass():
    queue = filled([("a", 9), ("b", 1), ("b", 2)])
    assert queue.take(lambda item: item[1] < 9) == [("b", 1), ("b", 2)]
    assert queue.take(lambda item: True) == [("a", 9)] and queue.first is None


def test_what_does_not_fit_for_long_is_waited_for():
    queue, batches = filled([("a", 9)]), 0
    room = 5
    while batches < 200:
        queue.put("b", ("b", 1))
        if not queue.take(lambda item: item[1] <= room):
            break
        batches += 1
    assert 10 < batches < 100, "then nobody comes before it"
    assert queue.take(lambda item: True)[0] == ("a", 9)


@given(ITEMS, st.integers(1, 30))
def test_nothing_is_lost_or_doubled_and_each_owner_keeps_its_order(items, most):
    queue, found = filled(items), []
    while len(queue):
        taken = queue.take(Most(most))
        assert taken
        found += taken
    assert sorted(found) == sorted(items)
    for owner in "abc":
        assert [item for item in found if item[0] == owner] == [item for item in items if item[0] == owner]


@given(ITEMS)
def test_what_nobody_waits_for_is_dropped(items):
    queue = filled(items)
    gone = queue.drop(lambda item: item[1] > 4)
    assert sorted(gone) == sorted(item for item in items if item[1] > 4)
    assert sorted(queue) == sorted(item for item in items if item[1] <= 4)
