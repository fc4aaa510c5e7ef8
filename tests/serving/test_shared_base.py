"""Many tasks on one base in memory: the answers are those of each task alone, from however many threads."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from biasline.bases.pin import verified_folder
from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.serving.shared_base import SharedBase, answer_together
from tests.serving.packages import ROWS, four_packages, moved, package


def body_of(base, task):
    with base.using(task) as (predictor, _):
        return predictor.model.base_model


def test_four_tasks_on_one_base_answer_as_each_does_alone(packages):
    alone = {name: one.predictor()(ROWS[name]) for name, one in packages.items()}
    assert alone["answers"] != alone["rhymes"]
    base = SharedBase(packages)
    assert base.loads == 1
    for name in ("mood", "answers", "rhymes", "topic", "answers", "mood", "mood"):
        assert base.answer(name, ROWS[name]) == alone[name], name
    assert base.loads == 1  # what a change of tasks does not take is a new base
    assert len({body_of(base, name) for name in packages}) == 1


def test_threads_that_mix_tasks_get_their_own_answers(packages):
    """Each delta is in place for all of an answer, whichever task another thread requests meanwhile."""
    drawn = {"temperature": 1.0, "seed": 7}
    wanted = {name: one.predictor()(ROWS[name]) for name, one in packages.items()}
    wanted_drawn = packages["answers"].predictor()(ROWS["answers"], drawn)
    base = SharedBase(packages)
    threads = 6
    together = threading.Barrier(threads)

    def work(number):
        together.wait()
        order = [*packages][number % 4 :] + [*packages][: number % 4]
        found = [(name, base.answer(name, ROWS[name]), wanted[name]) for _ in range(2) for name in order]
        return [*found, ("answers, drawn", base.answer("answers", ROWS["answers"], drawn), wanted_drawn)]

    with ThreadPoolExecutor(threads) as pool:
        done = [one for found in pool.map(work, range(threads)) for one in found]
    assert len(done) == threads * (2 * len(packages) + 1)
    assert [name for name, answers, expected in done if answers != expected] == []
    assert base.loads == 1


def test_a_task_in_use_keeps_its_delta_until_it_is_done(packages):
    """Without the lock the other thread would take the delta off in the middle of the block."""
    base, started, done = SharedBase(packages), threading.Event(), []

    def other():
        started.set()
        done.append(base.answer("rhymes", ROWS["rhymes"]))

    alone = packages["answers"].predictor()(ROWS["answers"])
    thread = threading.Thread(target=other)
    with base.using("answers") as (predictor, _):
        thread.start()
        started.wait()
        thread.join(0.2)
        assert thread.is_alive() and not done
        assert predictor(ROWS["answers"]) == alone
    thread.join()
    assert done == [packages["rhymes"].predictor()(ROWS["rhymes"])]


def test_a_refused_request_leaves_the_base_usable(packages):
    base = SharedBase(packages)
    alone = packages["mood"].predictor()(ROWS["mood"])
    with pytest.raises(BiaslineError, match="row 1: `text` must be a text, not missing"):
        base.answer("mood", [{}])
    with pytest.raises(BiaslineError, match="weather: no such task on this base → known are answers, mood, rhymes"):
        base.answer("weather", ROWS["mood"])
    assert base.answer("mood", ROWS["mood"]) == alone


def test_tasks_of_several_bases_are_answered_base_by_base(packages, workspace):
    packages = {"mood": packages["mood"], "other": package(workspace, 5, load={"dtype": "bfloat16"})}
    packages["topic"] = four_packages(workspace)["topic"]
    rows, lines = {"other": ROWS["answers"], **ROWS}, []
    found = dict(answer_together(packages, rows, lines.append))
    assert list(found) == ["mood", "topic", "other"]
    assert found == {name: one.predictor()(rows[name]) for name, one in packages.items()}
    said = [line.partition(" in ")[0] for line in lines]
    swapped = [f"{name}: bloom delta swapped" for name in found]
    assert said == ["tiny-bloom: loaded once", *swapped[:2], "tiny-bloom: loaded once", swapped[2]]


def test_classifiers_alone_share_a_base_too(packages):
    two = {name: packages[name] for name in ("mood", "topic")}
    base = SharedBase(two)
    assert base.loads == 1
    for name in ("topic", "mood"):
        assert base.answer(name, ROWS[name]) == two[name].predictor()(ROWS[name])


def test_no_delta_stays_behind(packages):
    base = SharedBase(packages)
    body = body_of(base, "answers")
    pin, folder = verified_folder(packages["mood"].pin_path)
    own = packages["answers"].load(folder).base_model.state_dict()
    with base.using("answers") as (predictor, _):
        packages["answers"].delta.revert(predictor.model)
    assert all(torch.equal(value, own[name]) for name, value in body.state_dict().items())


def test_tasks_of_different_bases_are_not_mixed(packages, workspace):
    bf16 = package(workspace, 5, load={"dtype": "bfloat16"})
    with pytest.raises(BiaslineError, match=r"other: its base is tiny-bloom in bfloat16, that of mood is .* float32"):
        SharedBase({"mood": packages["mood"], "other": bf16})


@pytest.fixture
def bert(workspace):
    """A tiny BERT with a pooler, and the demo's tokenizer; makes packages on it."""
    from transformers import BertConfig, BertModel

    from biasline.bases.create import create_pin

    folder = workspace / "data/bases/bert"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    BertModel(BertConfig(**sizes, vocab_size=1792)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(workspace / "data/bases/tiny-bloom" / name, folder)
    path = folder.with_suffix(".json")
    path.write_text(create_pin(str(folder), path).dumps())

    def make(seed, labels, pooling):
        task = Task(kind="classification", base="data/bases/bert.json", data="d", train={"pooling": pooling})
        return moved(path, task, seed, labels)

    return make


def test_tasks_that_pool_alike_share_a_base_and_others_do_not(bert):
    packages = {
        "mood": bert(1, ["bad", "good"], "mean"),
        "topic": bert(2, ["art", "music", "sport"], "mean"),
        "tone": bert(3, ["kind", "rude"], "model"),
    }
    alone = {name: one.predictor()(ROWS["mood"]) for name, one in packages.items()}
    base = SharedBase(packages)
    assert base.loads == 2
    for name in ("tone", "mood", "topic", "tone"):
        assert base.answer(name, ROWS["mood"]) == alone[name], name
