"""Many tasks on one base in memory: the answers are those of each task alone, from however many threads."""

import shutil
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
import torch

from biasline.bases.pin import verified_folder
from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.serving.engine.bases import Bases, answer_together
from biasline.serving.engine.engine import EngineFailed
from biasline.serving.engine.stand_in import drawing
from biasline.serving.engine.ticket import Ticket
from tests.serving.packages import ROWS, TEXTS, fleet, four_packages, moved, package


@pytest.fixture
def bases():
    found = Bases()
    yield found
    found.close()


def hold(bases, packages):
    """All packages on their bases, language models first."""
    order = sorted(packages, key=lambda name: packages[name].headed)
    return {name: bases.of(packages[name]).hold(name, packages[name]) for name in order}


def same(given, wanted):
    """Whether answers are the same but for the last digits: the rows of a batch are summed in another order."""
    if isinstance(wanted[0], str):
        return given == wanted
    return all(
        one["label"] == other["label"] and one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        for one, other in zip(given, wanted, strict=True)
    )


def test_four_tasks_on_one_base_answer_as_each_does_alone(packages, bases):
    alone = {name: one.predictor()(ROWS[name]) for name, one in packages.items()}
    assert alone["answers"] != alone["rhymes"]
    held = hold(bases, packages)
    assert [base.loads for base in bases] == [1]
    for name in ("mood", "answers", "rhymes", "topic", "answers", "mood", "mood"):
        assert same(held[name].predictor(ROWS[name]), alone[name]), name
    assert len({id(one.lane.model.base_model) for one in held.values()}) == 1
    assert len({one.engine for one in held.values()}) == 1


def test_threads_that_mix_tasks_get_their_own_answers(packages, bases):
    wanted = {name: one.predictor()(ROWS[name]) for name, one in packages.items()}
    held = hold(bases, packages)
    threads = 6
    together = threading.Barrier(threads)

    def drawn():
        with drawing(7):
            return held["answers"].predictor(ROWS["answers"], {"temperature": 1.0, "seed": 7})

    wanted_drawn = drawn()

    def work(number):
        together.wait()
        order = [*packages][number % 4 :] + [*packages][: number % 4]
        found = [(name, held[name].predictor(ROWS[name]), wanted[name]) for _ in range(4) for name in order]
        return [*found, ("answers, drawn", drawn(), wanted_drawn)]

    with ThreadPoolExecutor(threads) as pool:
        done = [one for found in pool.map(work, range(threads)) for one in found]
    assert len(done) == threads * (4 * len(packages) + 1)
    assert [name for name, answers, expected in done if not same(answers, expected)] == []
    lane = held["answers"].lane
    assert lane.rows > 1.5 * lane.passes, "sequences of several requests went through the model together"


def test_a_refused_request_leaves_the_engine_usable(packages, bases):
    held = hold(bases, packages)["mood"]
    alone = packages["mood"].predictor()(ROWS["mood"])
    with pytest.raises(BiaslineError, match="row 1: `text` must be a text, not missing"):
        held.predictor([{}])
    assert same(held.predictor(ROWS["mood"]), alone)


def test_a_row_that_fails_fails_alone(packages, bases, monkeypatch):
    """What is wrong with one row of a batch is told to whoever asked it, and to nobody else."""
    held = hold(bases, packages)["mood"]
    alone = packages["mood"].predictor()(ROWS["mood"])
    lane, whole = held.lane, held.lane._outputs

    def failing(rows):
        if any(row.length < 3 for row in rows):
            raise RuntimeError("a short row")
        return whole(rows)

    monkeypatch.setattr(lane, "_outputs", failing)
    gate = threading.Event()
    lane.engine.between(gate.wait)
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(held.predictor, ROWS["mood"]) for _ in range(3)]
        bad = pool.submit(held.predictor, [{"text": "a"}])
        while lane.load < 3 * len(ROWS["mood"]) + 1:
            time.sleep(0.01)
        gate.set()
        assert all(same(one.result(), alone) for one in good)
        with pytest.raises(EngineFailed, match="a short row"):
            bad.result()


def test_a_slot_is_emptied_and_given_to_the_next(packages, bases):
    held = hold(bases, {"answers": packages["answers"]})["answers"]
    bank, before = held.lane.bank, held.lane.bank.slots
    assert bank.filled == (held.slot,)
    held.release()
    held.engine.between(lambda: None).result()
    assert bank.filled == ()
    again = bases.of(packages["rhymes"]).hold("rhymes", packages["rhymes"])
    assert again.slot == held.slot and bank.slots == before
    assert again.predictor(ROWS["rhymes"]) == packages["rhymes"].predictor()(ROWS["rhymes"])


def test_tasks_of_several_bases_are_answered_base_by_base(packages, workspace):
    packages = {"mood": packages["mood"], "other": package(workspace, 5, load={"dtype": "bfloat16"})}
    packages["topic"] = four_packages(workspace)["topic"]
    rows, lines = {"other": ROWS["answers"], **ROWS}, []
    found = dict(answer_together(packages, rows, lines.append))
    assert list(found) == ["mood", "topic", "other"]
    assert all(same(found[name], one.predictor()(rows[name])) for name, one in packages.items())
    said = [line.partition(" in ")[0] for line in lines]
    put = [f"{name}: bloom delta put" for name in found]
    assert said == ["tiny-bloom: loaded once", *put[:2], "tiny-bloom: loaded once", put[2]]


def test_the_base_stays_what_it_is(packages, bases):
    held = hold(bases, packages)
    for name, one in held.items():
        one.predictor(ROWS[name])
    _, folder = verified_folder(packages["mood"].pin_path)
    own = packages["answers"].load(folder).base_model.state_dict()
    body = held["mood"].lane.model.base_model
    assert all(torch.equal(value, own[name]) for name, value in body.state_dict().items())


def test_rows_of_a_fleet_are_answered_by_their_own_deltas(workspace, bases):
    names = ["one", "Two/2", "drei 🙂", "few"]
    package = fleet(workspace, names)
    rows = [{"instruction": text, "shop": name} for text in TEXTS for name in names]
    wanted = package.predictor()(rows)
    assert len(set(wanted[:4])) > 2
    held = bases.of(package).hold("fleet", package)
    assert held.predictor(rows) == wanted
    assert set(held.own) == set(names[:-1]) and held.tenants.slot("few") == held.slot
    with pytest.raises(BiaslineError, match="tenant 'One': not among the 4 that were trained → did you mean 'one'"):
        held.predictor([{**rows[0], "shop": "One"}])
    held.release()
    held.engine.between(lambda: None).result()
    assert held.lane.bank.filled == ()


def test_what_a_delta_takes_in_memory_is_its_values(workspace, bases):
    package = fleet(workspace, ["one", "two", "few"])
    held = bases.of(package).hold("fleet", package)
    assert held.package.delta.tensors == {} and not held.package.delta.manifest.tensors
    told = held.lane.bank._held[held.own["two"]]
    values = held.lane.bank.table.shape[1] * 4
    assert len(told.manifest) < 0.2 * values
    assert told.places is held.lane.bank._held[held.own["one"]].places


def test_a_cancelled_request_is_given_up(packages, bases):
    held = hold(bases, packages)["answers"]
    ticket = Ticket()
    ticket.cancel()
    with ticket.used(), pytest.raises(CancelledError):
        held.predictor(ROWS["answers"])
    with Ticket(0.0).used(), pytest.raises(TimeoutError):
        held.predictor(ROWS["answers"])
    assert held.predictor(ROWS["answers"]) == packages["answers"].predictor()(ROWS["answers"])
    assert held.engine.idle


def test_a_stopped_engine_refuses(packages):
    bases = Bases()
    held = hold(bases, packages)
    bases.close(1)
    for name in ("answers", "mood"):
        with pytest.raises(BiaslineError, match="the server is stopping"):
            held[name].predictor(ROWS[name])


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


def test_tasks_that_pool_alike_share_a_base_and_others_do_not(bert, bases):
    packages = {
        "mood": bert(1, ["bad", "good"], "mean"),
        "topic": bert(2, ["art", "music", "sport"], "mean"),
        "tone": bert(3, ["kind", "rude"], "model"),
    }
    alone = {name: one.predictor()(ROWS["mood"]) for name, one in packages.items()}
    held = hold(bases, packages)
    assert [base.loads for base in bases] == [2]
    assert held["mood"].lane is held["topic"].lane is not held["tone"].lane
    for name in ("tone", "mood", "topic", "tone"):
        assert same(held[name].predictor(ROWS["mood"]), alone[name]), name
