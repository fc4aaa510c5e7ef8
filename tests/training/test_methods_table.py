"""The table of methods: each is declared once, and what declares a further one here is all that it takes."""

import json

import pytest
import torch

from biasline.bitfit import inspect_biases
from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.layout import DELTA_FILE, write_text
from biasline.params import METHOD_SPECS, Task, Train, method_spec, parse_params
from biasline.params.method_spec import MethodSpec, NoParameters
from biasline.registry.sync import register_or_note, sync
from biasline.registry.versions import find_version, register_version, registered_note
from biasline.tracking.compare import as_markdown, compare
from biasline.tracking.contents import run_name, run_params
from biasline.tracking.publish import publish
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from biasline.training.methods import METHODS, Method, PeakRates, PreparedModel, WholeTuning, get_method
from biasline.training.methods.delta import prepared_delta, restore_delta
from biasline.training.train import train

pytestmark = pytest.mark.e2e  # processes, or whole runs of stages

# A method that trains the first norm alone, in an artifact of its own kind.
NORM_SPEC = MethodSpec(
    name="first_norm",
    order=9,
    trains="the first norm",
    parameters=NoParameters,
    artifact="norm.pt",
    registrable=False,
    freezes_base=True,
    card_title="One norm, tuned, of",
    card_training=lambda chosen, roles: f"The first norm ({roles})",
    tuned_part=lambda chosen: "embedding norm",
    run_params=lambda chosen: {"norms": 1},
)


def _prepare(model, head, params):
    total = inspect_biases(model).total
    model.requires_grad_(False)
    norm = model.transformer.word_embeddings_layernorm.requires_grad_(True)
    parts = list(norm.parameters())
    count = sum(part.numel() for part in parts)
    return PreparedModel(
        model=model,
        tuning=WholeTuning({"norm": parts}),
        total=total,
        counts={"biases": 0, "norm": count, "head": 0},
        what="the first norm",
        roles={"norm": count},
        save=lambda target, provenance: torch.save(norm.state_dict(), target),
    )


def _restore(model, artifact):
    model.transformer.word_embeddings_layernorm.load_state_dict(torch.load(artifact, weights_only=True))
    return model


NORM_METHOD = Method(spec=NORM_SPEC, peaks=PeakRates(tuned=1.0, head=1.0), prepare=_prepare, restore=_restore)


@pytest.fixture
def declare(monkeypatch):
    """A function that adds a method to the two tables, for one test."""

    def add(spec, method):
        monkeypatch.setitem(METHOD_SPECS, spec.name, spec)
        monkeypatch.setitem(METHODS, spec.name, method)

    return add


def by_method(task, place, method):
    """The task with another method, trained and evaluated, and its record."""
    other = task.model_copy(update={"train": Train(**{**task.train.model_dump(), "method": method})})
    write_text(place.resolved, other.model_dump_json())
    train(other, place, lambda start: lambda *_: None)
    evaluate(other, place)
    return other, record_of_workspace(place.task)


def test_both_tables_have_the_same_methods():
    assert list(METHODS) == list(METHOD_SPECS) == ["bitfit", "head", "lora", "prefix", "full"]
    assert all(METHODS[name].spec is spec for name, spec in METHOD_SPECS.items())


@pytest.mark.slow
def test_a_declared_method_goes_through_the_stages(trained, declare):
    task, place = trained
    client = connect()
    publish(client, record_of_workspace("small"))
    declare(NORM_SPEC, NORM_METHOD)
    task, record = by_method(task, place, "first_norm")

    report = json.loads(place.train_report.read_text())
    assert report["method"] == "first_norm" and report["roles"] == {"norm": report["trainable"]["total"]}
    assert sorted(path.name for path in place.model.iterdir()) == ["norm.pt", "train.json"]
    metrics = json.loads(place.metrics.read_text())
    assert metrics["tuned"]["response_perplexity"] < metrics["base"]["response_perplexity"]

    card = place.card.read_text(encoding="utf-8")
    assert "One norm, tuned, of `tiny-bloom` for the task `small`" in card and "The first norm (norm " in card
    assert "only deltas are registered" in card

    assert run_name(task) == "first_norm embedding norm"
    params = run_params(record, task)
    assert (params["method"], params["part"], params["norms"]) == ("first_norm", "embedding norm", 1)
    assert "biases" not in params and "lora_rank" not in params

    publish(client, record)
    found = compare(client, "small", task)
    assert {row.method for row in found.runs} == {"bitfit", "first_norm"} and "first_norm" not in found.missing
    assert "| first_norm embedding norm · " in as_markdown(found)


def test_compare_misses_a_declared_method_that_no_run_has(trained, declare):
    client = connect()
    publish(client, record_of_workspace("small"))
    declare(NORM_SPEC, NORM_METHOD)
    assert compare(client, "small", trained[0]).missing == ("lora", "prefix", "full", "first_norm")


@pytest.mark.slow
def test_a_method_that_is_not_registrable_is_never_registered(trained, declare):
    """Not even where it makes a delta, which everything else would take for one to register."""
    from biasline.bitfit import tune_biases

    fields = {name: getattr(NORM_SPEC, name) for name in NORM_SPEC.__dataclass_fields__}
    spec = MethodSpec(**{**fields, "name": "two_roles", "artifact": DELTA_FILE})

    def prepare(model, head, params):
        return prepared_delta(tune_biases(model, "value+mlp_in", head=head), "two roles")

    declare(spec, Method(spec=spec, peaks=PeakRates(1.0, 1.0), prepare=prepare, restore=restore_delta))
    task, record = by_method(*trained, "two_roles")
    client = connect()
    assert register_or_note(record).startswith("two_roles: compared, not registered; its run is in ")
    assert registered_note(record)["delta_sha256"]
    assert not any("registered" in line for line in sync(client, "small"))
    assert find_version(client, "small", record.fingerprint) is None
    with pytest.raises(BiaslineError, match="models of method two_roles are compared, not registered"):
        register_version(client, record, publish(client, record))


def test_an_unknown_method_is_refused_everywhere(trained):
    text = "tasks: {a: {base: b, data: d, train: {method: lorra}}}"
    with pytest.raises(BiaslineError, match=r"tasks\.a\.train\.method: .*should be 'bitfit', .*'prefix' or 'full'"):
        parse_params(text, "params.yaml")
    with pytest.raises(BiaslineError, match=r"train\.method 'lorra': there is no such method → use one of bitfit, "):
        method_spec("lorra")
    task, place = trained
    other = task.model_copy(update={"train": task.train.model_copy(update={"method": "lorra"})})
    for use in (
        lambda: get_method("lorra"),
        lambda: run_name(other),
        lambda: other.train.unused,
        lambda: train(other, place, lambda start: lambda *_: None),
        lambda: evaluate(other, place),
    ):
        with pytest.raises(BiaslineError, match="there is no such method"):
            use()


def test_only_a_task_with_a_head_can_train_a_head_alone():
    with pytest.raises(ValueError, match=r"train\.method head: a task of kind instruction has no head of its own"):
        Task(base="b", data="d", train={"method": "head"})
    Task(base="b", data="d", kind="classification", train={"method": "head"})
