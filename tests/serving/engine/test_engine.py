"""The thread that makes all passes on a base."""

import pytest

from biasline.serving.engine.engine import Engine


@pytest.fixture
def engine():
    made = Engine("base")
    yield made
    made.close()


def test_loading_rests_only_where_others_are_answered(engine, monkeypatch):
    slept = []
    monkeypatch.setattr("biasline.serving.engine.engine.time.sleep", slept.append)
    engine.give_way(0.01)
    assert slept == []
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "idle", property(lambda _: False))
        for took in (0.01, 10.0):
            engine.give_way(took)
    assert slept == [0.02, 0.2]
