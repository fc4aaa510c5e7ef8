"""The untuned base's answers: asked once, and again where anything that they come from is another."""

import json

import pytest

from biasline.evaluation import answers
from biasline.evaluation.evaluate import evaluate
from biasline.evaluation.generate import Answer
from biasline.layout import local_state


@pytest.fixture
def asked(trained, monkeypatch):
    """The task, its place, and a list that gets an entry for each model that writes answers, which cost nothing."""
    task, place = trained
    seen = []

    def generate(model, tokenizer, prompts, *_):
        seen.append(model)
        return [Answer(f"{sum(ids)} Ä", sum(ids) % 2 == 0) for ids in prompts]

    monkeypatch.setattr(answers, "generate", generate)
    monkeypatch.setattr(answers, "latency_ms", lambda *_: 1.0)
    evaluate(task, place)
    return task, place, seen


def outs(place):
    return {path.name: path.read_bytes() for path in place.evaluation.rglob("*") if path.is_file()}


def changed(task, group, **values):
    return task.model_copy(update={group: getattr(task, group).model_copy(update=values)})


def test_the_base_is_asked_once_and_the_outs_are_the_same(asked):
    task, place, seen = asked
    assert len(seen) == 2
    before = outs(place)
    evaluate(task, place)
    assert len(seen) == 3 and outs(place) == before


def test_without_reuse_it_is_asked_again(asked):
    task, place, seen = asked
    evaluate(changed(task, "run", reuse=False), place)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("evaluate", {"max_new_tokens": 5}),
        ("evaluate", {"temperature": 0.5, "seed": 3}),
        ("evaluate", {"batch_size": 7}),
        ("tokens", {"shorten": "end"}),
    ],
)
def test_it_is_asked_again_where_what_it_is_asked_is_another(asked, group, values):
    task, place, seen = asked
    evaluate(changed(task, group, **values), place)
    again = {"tokens": 3}.get(group, 4)  # questions that are short enough are the same, whatever is cut of others
    assert len(seen) == again


def test_the_base_behind_examples_is_kept_too(asked):
    task, place, seen = asked
    task = changed(task, "evaluate", examples=2)
    evaluate(task, place)
    assert len(seen) == 4  # behind the examples, and the tuned one
    evaluate(task, place)
    assert len(seen) == 5


@pytest.mark.parametrize(
    "content", ["", "{", '{"answers": []}', '{"answers": [1], "nll": [], "tokens": [], "hits": []}']
)
def test_what_was_kept_and_is_damaged_is_asked_again(asked, content):
    task, place, seen = asked
    before = outs(place)
    [path] = (local_state() / "untuned").iterdir()
    whole = json.loads(path.read_text())
    path.write_text(content)
    evaluate(task, place)
    assert len(seen) == 4 and outs(place) == before and json.loads(path.read_text()) == whole
