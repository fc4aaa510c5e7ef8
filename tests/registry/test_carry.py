"""Tenants that are worse off with a candidate keep the champion's deltas in the version that is promoted."""

import io
import shutil
from contextlib import redirect_stdout

import polars as pl
import pytest
from typer.testing import CliRunner

from biasline.bases.pin import file_sha256
from biasline.bitfit import BiasDelta
from biasline.bitfit.deltas import file_of
from biasline.bitfit.inventory import value_hash
from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, write_text
from biasline.registry import carry, gates, ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION, PREVIOUS
from biasline.registry.extract import extract
from biasline.registry.of_tenant import in_words, tenant_told
from biasline.registry.promote import promote, rollback
from biasline.registry.signing import sign, standing
from biasline.registry.sync import register, sync
from biasline.registry.verify import verify
from biasline.serving.predictor import asked_rows
from biasline.serving.registered import aliased, package_files, read_package, versions_of
from biasline.tracking.record import Record, champion_files, record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import FLEET_NAMES
from tests.registry.keys import make_keys
from tests.registry.test_fleet import by_alone

NEXT = "feedbeef" * 2


def changed(task, place: TaskPlace) -> None:
    """Another training of the same fleet: all deltas, the shared one too, moved a little."""
    for path in (place.delta, *place.own.glob("*.safetensors")):
        delta = BiasDelta.load(path)
        moved = {name: value * 1.01 for name, value in delta.tensors.items()}
        told = delta.manifest.tensors
        entries = {name: told[name].model_copy(update={"values": value_hash(moved[name])}) for name in moved}
        BiasDelta(moved, delta.manifest.model_copy(update={"tensors": entries})).save(path)
    write_text(place.train_report, dump_json({**load_json(place.train_report, ""), "fingerprint": NEXT}))
    evaluate(task, place)


@pytest.fixture
def beside(store, fleet, monkeypatch):
    """A champion and a candidate of the fleet, of whose tenants `one` and `few` are called worse off."""
    task, place = fleet
    client = connect()
    register(client, record_of_workspace("fleet"))
    promote(client, "fleet", task, "ann", "the first")
    changed(task, place)
    register(client, record_of_workspace("fleet"))
    worse = ["one", "few"]

    # So few rows show nothing: who is worse off is said here, but for those that keep the champion's delta.
    monkeypatch.setattr(gates, "called", lambda gains, p_values: verdicts(p_values))

    def verdicts(p_values):
        names = asked[-1]
        assert len(p_values) == len(names)
        assert all(p == 1 for name, p in zip(names, p_values, strict=True) if name in kept[-1])
        return ["worse" if name in worse and name not in kept[-1] else "undecided" for name in names]

    asked, kept, beside = [], [], gates.tenants_beside

    def noted(task, metric, candidate, champion):
        asked.append(candidate.predictions["shop"].unique(maintain_order=True).to_list())
        kept.append(set(candidate.carried))
        return beside(task, metric, candidate, champion)

    monkeypatch.setattr(carry, "tenants_beside", noted)
    monkeypatch.setattr(gates, "tenants_beside", noted)
    return client, task, place, worse


def files_of(client, number):
    [version] = [one for one in versions_of(client, "fleet") if str(one.version) == str(number)]
    return version, read_package(version)


def test_who_is_worse_off_keeps_the_champions_delta(beside, tmp_path):
    client, task, place, worse = beside
    foretold = promote(client, "fleet", task, "ann", "", dry_run=True)
    assert foretold.verdict.passed and len(versions_of(client, "fleet")) == 2
    decision = promote(client, "fleet", task, "ann", "better for most")
    assert decision.promoted and str(decision.version) == "3"
    both = [[gate for gate in one.verdict.gates if gate.name != "size"] for one in (foretold, decision)]
    for one, other in zip(*both, strict=True):
        assert (one.name, one.passed, one.numbers) == (other.name, other.passed, other.numbers)
        assert one.told.replace("would keep", "keep") == other.told, "what a dry run says is what comes of it"
    [gate] = [one for one in decision.verdict.gates if one.name == "tenants not worse off"]
    assert "2 keep the champion's delta, since they are worse off without: 'few', 'one'" in gate.told

    # Each tenant's delta is the very one of the version that it is to be from.
    (_, first), (_, second), (version, third) = (files_of(client, number) for number in (1, 2, 3))
    for name in FLEET_NAMES:
        wanted = first if name in worse else second
        own = name in wanted.tenants.own
        out = tmp_path / file_of(name)
        extract(client, "fleet", "champion", name, out)
        extract(client, "fleet", (wanted is first and "previous") or "candidate", name, tmp_path / f"{name[:2]}.wanted")
        assert out.read_bytes() == (tmp_path / f"{name[:2]}.wanted").read_bytes()
        assert (name in third.tenants.own) == (own or name in worse)

    # What is said of it is what it answers.
    record = Record("fleet", decision.fingerprint)
    predictions = pl.read_parquet(record.file(place.predictions))
    assert predictions["tuned"].to_list() == by_alone(third, asked_rows(task, predictions))
    before = pl.read_parquet(
        Record("fleet", files_of(client, 1)[0].tags["biasline.fingerprint"]).file(place.predictions)
    )
    candidate = pl.read_parquet(place.predictions)
    for name in FLEET_NAMES:
        expected = before if name in worse else candidate
        mine, theirs = (frame.filter(shop=name)["tuned_nll"].to_list() for frame in (predictions, expected))
        assert mine == pytest.approx(theirs, rel=1e-5) and mine
    metrics = record.read(place.metrics)
    assert metrics["tenants"]["carried"] == 2 and metrics["fingerprint"] == decision.fingerprint
    assert metrics["base"] == load_json(place.metrics, "")["base"]
    assert "never_ending_rate" in metrics["left_out"]
    assert "have the delta of an earlier version" in record.file(place.card).read_text()
    assert "few, one." in record.file(place.by_tenant / "page.md").read_text()
    report = record.read(place.train_report)
    assert report["tenants"] == {"count": 4, "own": len(third.tenants.own), "shared": 0, "failed": 0, "carried": 2} | {
        "shared": len(third.tenants.shared)
    }
    told = tenant_told(client, version, "one")
    assert "carried over from" in in_words(told) and told["test"]["verdict"] == "carried over"
    assert told["sha256"] == file_sha256(record.file(place.own) / file_of("one"))


@pytest.mark.slow
def test_such_a_version_is_one_like_any_other(beside, store, empty_store):
    client, task, place, _ = beside
    decision = promote(client, "fleet", task, "ann", "better for most")
    entry = list(ledger.entries(place.ledger))[-1]
    first = files_of(client, 1)[0].tags["biasline.fingerprint"]
    assert entry["carried"] == {"of": NEXT, "from": first, "tenants": ["few", "one"]}
    assert entry["fingerprint"] == decision.fingerprint and entry["tenants"]["carried"] == 2
    assert champion_files("fleet") == Record("fleet", decision.fingerprint).files
    assert not verify(client, "fleet")[1]
    page = CliRunner().invoke(app, ["why", "fleet"]).stdout
    assert f"| carried over | 2 tenants have the deltas of `{first}`, the others those of `{NEXT}` |" in page
    assert "2 carried over" in client.get_run(aliased(client, "fleet", CHAMPION).run_id).info.run_name

    # The same candidate again comes to the same version.
    again = promote(client, "fleet", task, "ann", "again")
    assert (str(again.version), again.verdict, again.promoted) == ("3", None, True)
    assert len(versions_of(client, "fleet")) == 3

    # A store that is gone is built again, with all three.
    answers = files_of(client, 3)[1].predictor()([{"shop": "one", "instruction": "Do you have tea?"}])
    shutil.copy(empty_store, store)
    shutil.rmtree(store / "mlartifacts")
    client = connect()
    with redirect_stdout(io.StringIO()):
        sync(client, "fleet")
    champion = aliased(client, "fleet", CHAMPION)
    assert champion.tags["biasline.fingerprint"] == decision.fingerprint
    assert read_package(champion).predictor()([{"shop": "one", "instruction": "Do you have tea?"}]) == answers
    assert aliased(client, "fleet", PREVIOUS).tags["biasline.fingerprint"] == first
    assert aliased(client, "fleet", CANDIDATE).tags["biasline.fingerprint"] == NEXT
    back, _ = rollback(client, "fleet", "ann", "no")
    assert back.tags["biasline.fingerprint"] == first


@pytest.mark.slow
def test_it_can_be_left_or_may_not_fit(beside, monkeypatch):
    client, task, place, worse = beside
    strict = task.model_copy(update={"gates": task.gates.model_copy(update={"carry_over": False})})
    decision = promote(client, "fleet", strict, "ann", "", dry_run=True)
    [gate] = [one for one in decision.verdict.gates if one.name == "tenants not worse off"]
    assert not gate.passed and "2 worse ('few', 'one')" in gate.told
    worse.clear()
    assert not promote(client, "fleet", task, "ann", "", dry_run=True).verdict.gates[0].numbers.get("carried")
    worse.append("one")
    # What does not fit is told before anything is decided, and then it counts as worse.
    champion, candidate = (aliased(client, "fleet", alias) for alias in (CHAMPION, CANDIDATE))
    record = Record("fleet", NEXT)
    delta = BiasDelta.load(record.file(place.delta))
    about = {**delta.manifest.about, "template": "another"}
    BiasDelta(delta.tensors, delta.manifest.model_copy(update={"about": about})).save(record.file(place.delta))
    decision = promote(client, "fleet", task, "ann", "", dry_run=True)
    [gate] = [one for one in decision.verdict.gates if one.name == "tenants not worse off"]
    assert not gate.passed and "not carried over: they are for another template" in gate.told
    with pytest.raises(BiaslineError, match=r"'one' cannot keep the champion's deltas: they are for another template"):
        carry.carry_over(client, candidate, champion, ["one"])
    shutil.rmtree(record.file(place.tokens))
    with pytest.raises(BiaslineError, match=r"record on this machine lacks summary\.json .`biasline sync fleet`"):
        carry.carry_over(client, candidate, champion, ["one"])
    assert len(versions_of(client, "fleet")) == 2


@pytest.mark.slow
def test_the_candidates_own_signature_is_what_the_gate_asks_for(beside, store):
    client, task, _, _ = beside
    private, public = make_keys(store)
    asked = task.model_copy(update={"gates": task.gates.model_copy(update={"require_signature": public.name})})
    refused = promote(client, "fleet", asked, "ann", "")
    assert not refused.promoted and len(versions_of(client, "fleet")) == 2
    sign(client, "fleet", "candidate", private)
    decision = promote(client, "fleet", asked, "ann", "")
    assert decision.promoted and str(decision.version) == "3"
    [gate] = [one for one in decision.verdict.gates if one.name == "signature"]
    assert gate.passed and "deltas for some tenants has none yet" in gate.told
    made = aliased(client, "fleet", CHAMPION)
    assert not standing(client, made, public).signed, "it was made by this very decision"
    sign(client, "fleet", "champion", private)
    assert standing(client, made, public).holds


@pytest.mark.slow
def test_another_evaluation_of_the_candidate_makes_another_version(beside):
    client, task, place, _ = beside
    first = promote(client, "fleet", task, "ann", "better for most")
    rollback(client, "fleet", "ann", "no")
    longer = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"max_new_tokens": 5})})
    write_text(place.resolved, longer.model_dump_json())
    evaluate(longer, place)
    register(client, record_of_workspace("fleet"))
    second = promote(client, "fleet", longer, "ann", "longer answers")
    assert second.promoted and second.fingerprint != first.fingerprint
    version, package = files_of(client, second.version)
    assert package.task.evaluate.max_new_tokens == 5 and not verify(client, "fleet")[1]
    run = client.get_run(version.run_id)
    assert "made.by" not in run.data.tags and run.data.tags["carried.of"] == NEXT


@pytest.mark.slow
def test_a_champions_files_that_were_changed_are_not_carried(beside):
    client, task, place, _ = beside
    files, *_ = package_files(aliased(client, "fleet", CHAMPION))
    files["tenants"].write_bytes(files["tenants"].read_bytes()[:-1] + b"x")
    with pytest.raises(BiaslineError, match="the packaged tenants has sha256"):
        promote(client, "fleet", task, "ann", "")
    assert len(list(ledger.entries(place.ledger))) == 1
