"""Outs of a training or an evaluation that was done before, from the run's record."""

import pytest

from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.tracking.record import evaluation_outs, record_of_workspace, training_outs
from biasline.tracking.reuse import evaluation_work, training_work

STAGES = {"train": (training_work, training_outs), "evaluate": (evaluation_work, evaluation_outs)}


def contents(place, outs):
    files = [file for path in outs for file in ([path] if path.is_file() else path.rglob("*"))]
    return {file: file.read_bytes() for file in files}


@pytest.fixture(params=STAGES)
def done(request, trained):
    """A task after training and evaluation, the work of a stage, and its outs; noted in the record."""
    task, place = trained
    work_of, outs_of = STAGES[request.param]
    work = work_of(task, place)
    assert work.reuse() == "", "nothing is noted as yet"
    record_of_workspace(place.task)
    work.note()
    return task, place, work_of, outs_of(place)


def lose(outs):
    for path in outs:
        for file in [path] if path.is_file() else list(path.rglob("*")):
            if file.name != "train.json":  # what names the model whose evaluation it is
                file.write_bytes(b"other")


def test_the_same_bytes_come_back(done):
    task, place, work_of, outs = done
    expected = contents(place, outs)
    work = work_of(task, place)
    lose(outs)
    assert "copied from .biasline" in work.reuse() and contents(place, outs) == expected


def test_other_work_is_done(done):
    task, place, work_of, _ = done
    other = task.model_copy(update={"train": task.train.model_copy(update={"seed": 9})})
    assert work_of(other, place).reuse() == ""


def test_it_can_be_switched_off(done):
    task, place, work_of, _ = done
    assert work_of(task.model_copy(update={"run": task.run.model_copy(update={"reuse": False})}), place).reuse() == ""


@pytest.mark.slow
def test_how_a_training_is_run_is_no_other_work(done):
    task, place, work_of, _ = done
    run = task.run.model_copy(update={"recompute": True, "checkpoint_every": 1.0})
    assert work_of(task.model_copy(update={"run": run}), place).reuse()


def test_a_record_that_was_damaged_gives_nothing(done):
    task, place, work_of, outs = done
    work = work_of(task, place)
    before = contents(place, outs)
    kept = work.record.file(outs[1])
    kept.write_bytes(kept.read_bytes()[:-1])
    assert work.reuse() == "" and contents(place, outs) == before
    kept.unlink()
    assert work.reuse() == "" and contents(place, outs) == before


def test_a_training_mends_the_record_that_was_damaged(trained):
    task, place = trained
    work, good = training_work(task, place), place.delta.read_bytes()
    record_of_workspace(place.task)
    work.note()
    kept = work.record.file(place.delta)
    kept.write_bytes(good[:-1])
    assert work.reuse() == ""
    record_of_workspace(place.task)  # any command
    work.note()
    assert work.reuse() == "", "what is damaged is not noted as done"
    work.record.take(place, trained=True)
    work.note()
    place.delta.write_bytes(b"other")
    assert work.reuse() and place.delta.read_bytes() == good


@pytest.mark.slow
def test_what_another_evaluation_left_in_the_record_is_not_noted(trained):
    """Two evaluations of one model at once: one takes its files after the other has, and before that notes them."""
    task, place = trained
    work = evaluation_work(task, place)
    record_of_workspace(place.task)
    ours = place.metrics.read_text()
    place.metrics.write_text(ours.replace("{", "{ ", 1))
    record_of_workspace(place.task)
    place.metrics.write_text(ours)
    work.note()
    assert evaluation_work(task, place).reuse() == ""


def test_a_projects_own_metrics_are_part_of_an_evaluation_with_all_beside_them(trained, workspace):
    task, place = trained
    own = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"metrics": "custom/scores.py"})})
    (workspace / "custom").mkdir()
    (workspace / "custom" / "scores.py").write_text("from custom.words import WORDS\n")
    (workspace / "custom" / "words.py").write_text("WORDS = 1\n")
    before = evaluation_work(own, place).fingerprint
    (workspace / "custom" / "words.py").write_text("WORDS = 2\n")
    assert evaluation_work(own, place).fingerprint != before


def test_several_machines_and_code_of_a_base_take_nothing(trained):
    """The other machines would wait for the first; and no fingerprint knows what comes with a base."""
    task, place = trained
    work = training_work(task, place)
    record_of_workspace(place.task)
    work.note()
    for group, values in (("run", {"launch": "torchrun"}), ("load", {"trust_remote_code": True})):
        other = task.model_copy(update={group: getattr(task, group).model_copy(update=values)})
        assert training_work(other, place).wanted is False
    assert training_work(task, place).wanted


def test_a_lineage_of_uncommitted_code_is_told_anew_once_it_is_committed(trained, monkeypatch):
    task, place = trained
    state = {"git.commit": "1" * 40, "git.dirty": "true"}
    monkeypatch.setattr("biasline.tracking.record.lineage", lambda *_: dict(state))
    work = training_work(task, place)
    work.record.begin(place)
    state |= {"git.commit": "2" * 40, "git.dirty": "false"}
    record_of_workspace(place.task)  # says nothing of what made the model
    assert work.record.lineage["git.dirty"] == "true"
    work.note()
    assert work.reuse() and work.record.lineage["git.commit"] == "2" * 40
    state |= {"git.commit": "3" * 40}
    assert work.reuse() and work.record.lineage["git.commit"] == "2" * 40, "that is where it was made"


@pytest.mark.slow
def test_a_broken_note_gives_nothing(done):
    task, place, work_of, _ = done
    work = work_of(task, place)
    (work.record.folder / "done.json").write_text('{"train": {')
    assert work.reuse() == ""
    work.note()
    assert work.reuse()


def test_one_of_several_processes_takes_nothing(trained, monkeypatch):
    """The others would wait for it."""
    task, place = trained
    work = training_work(task, place)
    record_of_workspace(place.task)
    work.note()
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    assert training_work(task, place).reuse() == ""


@pytest.mark.slow
def test_an_evaluation_of_other_data_is_done(trained):
    task, place = trained
    work = evaluation_work(task, place)
    record_of_workspace(place.task)
    work.note()
    assert evaluation_work(task, place).reuse()
    place.quality.write_text(place.quality.read_text() + " ")
    assert evaluation_work(task, place).reuse() == ""


def test_an_adapter_is_not_kept_in_records(trained):
    """It may be large: it is trained again."""
    task, place = trained
    work = training_work(task, place)
    record_of_workspace(place.task)
    work.record.file(place.delta).unlink()
    work.note()
    assert training_work(task, place).reuse() == "" and not (work.record.folder / "done.json").exists()


def test_parameters_have_the_switch():
    assert Task(base="b", data="d").run.reuse and TaskPlace("t").confusion in evaluation_outs(TaskPlace("t"))
