"""Whole searches on a small base: what they end with, killed and gone on with, shared, written into params.yaml."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from biasline.bitfit.applied import applied_to
from biasline.cli import app
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace, local_state, write_text
from biasline.params import Task, Train, read_params
from biasline.paramsfile import set_train
from biasline.search.trainee import Trainee
from biasline.search.tune import tune
from biasline.tokens.sets import tokenize

pytestmark = pytest.mark.e2e  # whole runs of stages


def laid(name="other", valid=True, **train):
    """A classification whose rows are in tokens: its task and place."""
    words = {"low": "cheap", "high": "dear"}
    rows = [
        {"text": f"sample {number} is {words[label]}", "label": label}
        for number, label in enumerate(["low", "low", "high"] * 54)
    ]
    Path("other.json").write_text(json.dumps(rows))
    given = {
        "kind": "classification",
        "base": "data/bases/tiny-bloom.json",
        "data": "other.json",
        "quality": {"near_duplicate": 1.0, "off": ["leak"]},
        "split": {"valid": 0.2 if valid else 0.0},
        "train": {"min_steps": 32, "epochs": 0.1, "batch_size": 8, "threads": 1, **train},
    }
    Path("params.yaml").write_text(json.dumps({"tasks": {name: given}}))
    task, place = Task.model_validate(given), TaskPlace(name)
    made(task, place)
    return task, place


def made(task, place):
    """Its rows in tokens."""
    write_text(place.resolved, task.model_dump_json())
    validate(task, place)
    augment(task, place)
    tokenize(task, place)


@pytest.fixture
def other(store):
    return laid()


def told(outcome):
    return outcome.points, outcome.verdict.best.number, outcome.verdict.gain, outcome.verdict.optimism


@pytest.mark.slow
def test_a_search_tries_the_parameters_as_they_are_first_and_costs_less_than_its_trials(other):
    lines = []
    outcome = tune(*other, trials=9, minutes=0, say=lines.append)
    assert lines[0].startswith("trial 0: the parameters as they are: ")
    assert outcome.trials == 9 and outcome.running == 0
    stopped = [line for line in lines if "stopped at step" in line]
    assert len(stopped) >= 4 and 3 < outcome.cost <= 6
    assert sum(point["finished"] for point in outcome.points) >= 3  # of those that were stopped, the best if need be
    steps = {point["number"]: point["steps"] for point in outcome.points}
    assert steps[0] == 32 and steps[1] in (1, 2, 4)  # the first ones have nothing to be held against
    assert sum(steps.values()) / 32 == pytest.approx(outcome.cost)
    assert {name for point in outcome.points for name in point} >= {"biases", "learning_rate", "length", "value"}
    assert sum(outcome.importance.values()) == pytest.approx(1.0)


@pytest.mark.slow
def test_killed_and_gone_on_with_it_ends_alike(other, monkeypatch):
    whole = told(tune(*other, trials=6, minutes=0))
    Path(local_state() / "tune").rename("before")

    seen, train = [], Trainee.train

    def killed(self, *arguments):
        seen.append(arguments)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(Trainee, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(*other, trials=6, minutes=0)
    lines = []
    assert told(tune(*other, trials=6, minutes=0, say=lines.append)) == whole
    assert lines[0].startswith("trial 2: ")  # what was done is not done again
    again = []
    assert told(tune(*other, trials=6, minutes=0, say=again.append)) == whole and again == []


def _share(folder, trials):
    import os

    os.chdir(folder)
    torch.set_num_threads(1)
    tune(*_read(), trials=trials, minutes=0)


def _read():
    from biasline.params import read_task

    place = TaskPlace("other")
    return read_task(place.resolved), place


@pytest.mark.slow
def test_two_processes_share_a_search(other, workspace):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_share, args=(str(workspace), 8)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    outcome = tune(*other, trials=8, minutes=0)
    assert outcome.trials == 8 and outcome.running == 0
    numbers = [point["number"] for point in outcome.points]
    assert numbers == list(range(len(numbers))) and len(numbers) >= 8  # with the best ones trained to the end


def test_the_base_is_as_it_was_after_each_training(other):
    trainee = Trainee(*other)
    before = {name: part.clone() for name, part in trainee.loaded.model.state_dict().items()}
    first = trainee.train(
        Train.model_validate(other[0].train.model_dump() | {"biases": "all+scale"}), (), lambda *_: True
    )
    model = trainee.loaded.model
    assert applied_to(model) is None
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    again = trainee.train(
        Train.model_validate(other[0].train.model_dump() | {"biases": "all+scale"}), (), lambda *_: True
    )
    assert np.array_equal(first.scores, again.scores) and first.loss == again.loss
    assert first.score == first.scores.sum() / len(trainee.loaded.sets.valid) and set(first.counts) == {1.0}


def test_a_trial_is_the_training_that_its_line_makes(other):
    """What a search finds, the train stage finds again with the same parameters."""
    from biasline.training.train import train

    task, place = other
    changed = Train.model_validate(task.train.model_dump() | {"learning_rate": 3e-3, "biases": "attention+mlp"})
    found = Trainee(task, place).train(changed, (), lambda *_: True)
    train(task.model_copy(update={"train": changed}), place, lambda start: lambda *_: None)
    report = json.loads(place.train_report.read_text())
    assert report["valid_loss"] == pytest.approx(found.loss, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "head"])
def test_other_methods_have_their_rates_searched(store, method):
    outcome = tune(*laid(method=method), trials=3, minutes=0)
    names = {name for point in outcome.points for name in point}
    assert "biases" not in names and {"head_learning_rate", "length"} <= names
    assert ("learning_rate" in names) == (method == "lora")


def test_without_validation_rows_nothing_can_be_judged(store):
    with pytest.raises(BiaslineError, match="no validation row to judge by → raise split.valid"):
        tune(*laid(valid=False), trials=3, minutes=0)


def test_scores_of_answers_are_those_of_rows(store):
    task, place = read_params(Path("params.yaml")).tasks["small"], TaskPlace("small")
    made(task, place)
    trainee = Trainee(task, place)
    found = trainee.train(task.train, (), lambda *_: True)
    rows = trainee.loaded.sets.valid
    supervised = sorted(sum(label != -100 for label in row["labels"][1:]) for row in rows)
    assert sorted(found.counts) == supervised and found.score == pytest.approx(-found.loss)
    assert len(found.scores) == len(rows)


def test_a_loss_that_is_not_finite_ends_a_trial_and_not_the_search(other, monkeypatch):
    judged, seen = Trainee._judged, []

    def odd(self, *arguments):
        found = judged(self, *arguments)
        seen.append(found)
        if len(seen) == 4:  # the first look of trial 1
            raise BiaslineError("step 2: the validation loss is nan", "lower train.learning_rate")
        return found

    monkeypatch.setattr(Trainee, "_judged", odd)
    lines = []
    assert tune(*other, trials=3, minutes=0, say=lines.append).trials == 3
    assert any("the validation loss is nan" in line for line in lines)


def test_tokens_of_other_parameters_are_told(other):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace('"valid": 0.2', '"valid": 0.3'))
    done = CliRunner().invoke(app, ["tune", "other"])
    assert "made before split of the task was changed in params.yaml → dvc repro tokenize@other" in str(done.exception)


def test_a_train_that_tasks_share_is_left_alone(workspace):
    path = Path("params.yaml")
    text = "tasks:\n  a: &one\n    base: b\n    data: d\n    train: {epochs: 1}\n  b:\n    <<: *one\n    data: e\n"
    path.write_text(text)
    with pytest.raises(BiaslineError, match="shares its `train` with tasks.b .* → write the lines by hand"):
        set_train(path, "a", {"epochs": 2.0})
    assert path.read_text() == text


@pytest.mark.slow
def test_what_training_says_is_not_the_outcome(other):
    done = CliRunner().invoke(app, ["tune", "other", "--trials", "2", "--json", "--figure", "drawn.svg"])
    assert json.loads(done.stdout)["trials"] == 2 and "head " in done.stderr


@pytest.mark.slow
def test_the_command_tells_writes_and_draws(store):
    # So slow a rate that a higher one is better; of answers, whose loss tells more than labels.
    rate = "    train: {min_steps: 16, epochs: 0.1, batch_size: 8, threads: 1, learning_rate: 1.0e-4}  # ours\n"
    Path("params.yaml").write_text(
        f"tasks:\n  small:\n    base: data/bases/tiny-bloom.json\n    data: rows.jsonl\n{rate}"
    )
    task, place = read_params(Path("params.yaml")).tasks["small"], TaskPlace("small")
    made(task, place)
    asked = ["tune", "small", "--trials", "6", "--minutes", "0", "--figure", "drawn.svg"]
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["better"] and told["gain"] > told["optimism"] >= 0
    again = CliRunner().invoke(app, [*asked, "--write"])
    lines = "".join(f"      {name}: {value}\n" for name, value in told["best"]["train"].items())
    assert f"# params.yaml\ntasks:\n  small:\n    train:\n{lines}" in again.stdout
    assert "written; train with `dvc repro register@small`" in again.stderr
    written = read_params(Path("params.yaml")).tasks["small"].train
    assert {name: getattr(written, name) for name in told["best"]["train"]} == told["best"]["train"]
    assert "# ours" in Path("params.yaml").read_text() and "<svg" in Path("drawn.svg").read_text()


def test_a_task_without_tokens_is_told(workspace):
    done = CliRunner().invoke(app, ["tune", "small"])
    assert "no rows in tokens yet → dvc repro tokenize@small" in str(done.exception)
