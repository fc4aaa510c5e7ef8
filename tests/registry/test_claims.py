"""Two checkouts on one store: every order in which their calls can fall, on a registry in memory."""

import itertools
import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

from biasline.registry import claims, ledger
from biasline.registry.claims import Elsewhere


class Registry:
    """The tags of one registered model; each call is one step of whoever's turn it is."""

    def __init__(self):
        self.tags = {}
        self.turns = None

    def get_registered_model(self, name):
        with self._turn():
            return SimpleNamespace(tags=dict(self.tags))

    def set_registered_model_tag(self, name, key, value):
        with self._turn():
            self.tags[key] = value

    def delete_registered_model_tag(self, name, key):
        with self._turn():
            self.tags.pop(key, None)

    def _turn(self):
        return nullcontext() if self.turns is None else self.turns.taken()


class Turns:
    """Lets two threads make their calls in a given order; who is done gives the rest to the other."""

    def __init__(self, order):
        self.order, self.done, self.changed = list(order), set(), threading.Condition()

    @contextmanager
    def taken(self):
        me = threading.current_thread().name
        with self.changed:
            self.changed.wait_for(lambda: not self.order or self.order[0] == me or self.order[0] in self.done)
            while self.order and self.order[0] in self.done:
                self.order.pop(0)
            if self.order and self.order[0] == me:
                self.order.pop(0)
            yield
            self.changed.notify_all()

    def leave(self):
        with self.changed:
            self.done.add(threading.current_thread().name)
            self.changed.notify_all()


@pytest.fixture
def paths(tmp_path):
    return {name: tmp_path / name / "promotions.jsonl" for name in "ab"}


def promoted(path, fingerprint, by="ann"):
    return ledger.append(path, ledger.PROMOTED, fingerprint=fingerprint, by=by, reason="")


def settled(registry):
    return [key for key, value in registry.tags.items() if value.startswith("settled")]


def test_of_two_that_decide_at_once_never_both_win(tmp_path):
    """Eight calls in all at the least, in each of their orders."""
    outcomes = {0: 0, 1: 0}
    for number, places in enumerate(itertools.combinations(range(8), 4)):
        registry = Registry()
        registry.turns = Turns("a" if place in places else "b" for place in range(8))
        won = []

        def decide(name, path, registry=registry, won=won):
            try:
                claims.settle(registry, "task", path)
                won.append(name)
            except Elsewhere:
                pass
            finally:
                registry.turns.leave()

        paths = {name: tmp_path / f"{number}{name}" for name in "ab"}
        for name, path in paths.items():
            promoted(path, name * 4)
        threads = [threading.Thread(target=decide, args=pair, name=pair[0]) for pair in paths.items()]
        [thread.start() for thread in threads]
        [thread.join(600) for thread in threads]
        registry.turns = None
        assert len(won) <= 1 and len(settled(registry)) == len(won)
        for name, path in paths.items():
            assert bool(ledger.moves(path)) is (name in won)  # whoever lost says so in its ledger
            assert next(ledger.entries(path))["decision"] == "promoted"
        assert not [value for value in registry.tags.values() if value.startswith("open")]
        outcomes[len(won)] += 1
    assert outcomes[0] and outcomes[1]


def test_a_ledger_that_lacks_a_move_is_told_and_keeps_what_it_has(paths):
    registry = Registry()
    first = promoted(paths["a"], "aaaa")
    claims.settle(registry, "task", paths["a"])
    paths["b"].parent.mkdir()
    paths["b"].write_bytes(paths["a"].read_bytes())
    promoted(paths["b"], "bbbb", by="bob")
    claims.settle(registry, "task", paths["b"])
    before = paths["a"].read_bytes()
    with pytest.raises(Elsewhere, match=r"promoted bbbb by bob, .*promotions\.jsonl here lacks it → `git pull`"):
        claims.settle(registry, "task", paths["a"])
    assert paths["a"].read_bytes() == before and ledger.moves(paths["a"]) == [first]
    paths["a"].write_bytes(paths["b"].read_bytes())
    claims.settle(registry, "task", paths["a"])


def test_a_decision_that_was_cut_off_loses_against_one_that_came_first(paths):
    registry = Registry()
    promoted(paths["a"], "aaaa")  # and then the machine went down
    promoted(paths["b"], "bbbb", by="bob")
    claims.settle(registry, "task", paths["b"])
    with pytest.raises(Elsewhere, match="promoted bbbb by bob"):
        claims.settle(registry, "task", paths["a"])
    assert ledger.moves(paths["a"]) == []
    assert [entry["decision"] for entry in ledger.entries(paths["a"])] == ["promoted", "withdrawn"]


def test_an_open_claim_of_a_dead_machine_does_not_stand_in_the_way_of_later_moves(paths):
    registry = Registry()
    dead = promoted(paths["b"], "bbbb", by="bob")
    promoted(paths["a"], "aaaa")
    claims.settle(registry, "task", paths["a"])
    registry.tags[f"champion.1.{dead['id']}"] = "open: promoted bbbb by bob"
    promoted(paths["a"], "cccc")
    claims.settle(registry, "task", paths["a"])
    assert len(settled(registry)) == 2
    with pytest.raises(Elsewhere):
        claims.settle(registry, "task", paths["b"])
    assert f"champion.1.{dead['id']}" not in registry.tags and ledger.moves(paths["b"]) == []


def test_a_wiped_store_gets_all_claims_back(paths):
    registry = Registry()
    for fingerprint in ("aaaa", "bbbb", "cccc"):
        promoted(paths["a"], fingerprint)
    claims.settle(registry, "task", paths["a"])
    assert len(settled(registry)) == 3
    before = dict(registry.tags)
    claims.settle(registry, "task", paths["a"])
    assert registry.tags == before
