"""Versions, promotion, ledger and sync on a store of their own."""

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.registry import ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION, PREVIOUS
from biasline.registry.promote import nominate, promote, rollback
from biasline.registry.sync import register, sync
from biasline.registry.versions import find_version
from biasline.serving.registered import aliased
from biasline.serving.server.traffic import Traffic
from biasline.tracking.publish import publish
from biasline.tracking.record import Record, record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import LENIENT_GATES

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)


@pytest.fixture
def registered(registered_small):
    return registered_small


def another(record: Record, fingerprint: str) -> Record:
    """A further run: a copy of the record under another fingerprint."""
    other = Record(record.task, fingerprint)
    shutil.copytree(record.folder, other.folder)
    for path in other.files.rglob("*.json"):
        path.write_text(path.read_text().replace(record.fingerprint, fingerprint))
    return other


def decisions(trained):
    return [entry["decision"] for entry in ledger.entries(trained[1].ledger)]


def test_registering_twice_is_once(registered):
    client, record = registered
    assert register(client, record).version == find_version(client, "small", record.fingerprint).version
    assert len(client.search_model_versions("name = 'biasline-small'")) == 1
    assert aliased(client, "small", CANDIDATE).tags["biasline.fingerprint"] == record.fingerprint


def test_an_experiment_moves_no_alias(registered, monkeypatch):
    client, record = registered
    monkeypatch.setenv("DVC_EXP_NAME", "tame-yak")
    version = register(client, another(record, "e" * 16))
    assert aliased(client, "small", CANDIDATE).version != version.version


def test_a_candidate_that_passes_becomes_champion(registered, trained):
    client, record = registered
    decision = promote(client, "small", LENIENT, "ann", "because")
    assert decision.promoted
    assert aliased(client, "small", CHAMPION).version == decision.version
    [entry] = ledger.entries(trained[1].ledger)
    assert (entry["decision"], entry["by"], entry["reason"]) == ("promoted", "ann", "because")
    assert entry["fingerprint"] == record.fingerprint
    assert entry["verdict"]["passed"]
    assert all(entry[name] for name in ("data_sha256", "base_digest", "test_sha256", "delta_sha256"))


def test_promoting_the_champion_again_changes_nothing(registered, trained):
    client, _ = registered
    promote(client, "small", LENIENT, "ann", "")
    before = trained[1].ledger.read_bytes()
    decision = promote(client, "small", LENIENT, "bob", "")
    assert (decision.promoted, decision.verdict) == (True, None)
    assert trained[1].ledger.read_bytes() == before


def test_a_refusal_is_recorded_and_moves_nothing(registered, trained):
    client, _ = registered
    decision = promote(client, "small", Task(base="b", data="d", gates={"floor": 1.0}), "ann", "")
    assert not decision.promoted
    assert aliased(client, "small", CHAMPION) is None
    assert decisions(trained) == ["refused"]
    assert "FAILED" in decision.verdict.as_markdown()


def test_without_a_candidate_the_way_out_is_told(store):
    with pytest.raises(BiaslineError, match=r"biasline-small: no candidate to promote.*dvc repro register@small"):
        promote(connect(), "small", LENIENT, "ann", "")


def test_the_next_champion_leaves_the_old_as_previous(registered, trained):
    client, record = registered
    promote(client, "small", LENIENT, "ann", "")
    register(client, another(record, "b" * 16))
    promote(client, "small", LENIENT, "ann", "")
    assert aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == "b" * 16
    assert aliased(client, "small", PREVIOUS).tags["biasline.fingerprint"] == record.fingerprint


def test_what_a_server_kept_of_users_rows_is_a_gate_and_compare_tells_it(registered, workspace):
    client, record = registered
    promote(client, "small", LENIENT, "ann", "")
    register(client, another(record, "b" * 16))
    asked = LENIENT.model_copy(
        update={"gates": LENIENT.gates.model_copy(update={"shadow_agreement": 0.9, "traffic": "traffic"})}
    )
    with pytest.raises(BiaslineError, match="no such folder of traffic"):
        promote(client, "small", asked, "ann", "", dry_run=True)
    params = json.loads((workspace / "params.yaml").read_text())
    params["tasks"]["small"]["gates"] = {"traffic": "traffic"}
    (workspace / "params.yaml").write_text(json.dumps(params))
    found = CliRunner().invoke(app, ["compare", "small"])
    assert found.exit_code == 0 and "no agreement is told" in found.stderr
    traffic = Traffic(str(workspace / "traffic"))
    told = {"task": "small", "version": "1", "fingerprint": record.fingerprint, "shadow_version": "2"}
    traffic.add({**told, "shadow_fingerprint": "c" * 16}, [], ["q"] * 99, ["x"] * 99, ["x"] * 99)
    traffic.flush()
    refused = promote(client, "small", asked, "ann", "", dry_run=True).verdict
    assert [gate.name for gate in refused.gates if not gate.passed] == ["agreement with the champion on users' rows"]
    traffic.add({**told, "shadow_fingerprint": "b" * 16}, [], ["q"] * 99, ["x"] * 99, ["x"] * 98 + ["y"])
    traffic.flush()
    found = CliRunner().invoke(app, ["compare", "small"])
    assert f"bbbbbbbb beside {record.fingerprint[:8]}, as users asked: the same answer to 0.9899" in found.stdout
    [_, one] = json.loads(CliRunner().invoke(app, ["compare", "small", "--json"]).stdout)["agreement"]
    assert (one["shadow_fingerprint"], one["rows"], one["agreed"]) == ("c" * 16, 99, 99)
    assert promote(client, "small", asked, "ann", "").promoted


def test_nominate_by_fingerprint_or_name(registered, trained, monkeypatch):
    client, record = registered
    monkeypatch.setenv("DVC_EXP_NAME", "tame-yak")
    register(client, another(record, "c" * 16))
    nominate(client, "small", "cccc", "ann", "better")
    assert aliased(client, "small", CANDIDATE).tags["biasline.fingerprint"] == "c" * 16
    nominate(client, "small", record.fingerprint[:8], "ann", "back")
    assert aliased(client, "small", CANDIDATE).tags["biasline.fingerprint"] == record.fingerprint
    assert decisions(trained) == ["nominated", "nominated"]
    with pytest.raises(BiaslineError, match="no registered version of a run 'zzzz'"):
        nominate(client, "small", "zzzz", "ann", "")
    with pytest.raises(BiaslineError, match="no version .*of a fingerprint or a run's name, 4 characters at least"):
        nominate(client, "small", "", "ann", "")


@pytest.mark.slow
def test_another_evaluation_is_another_version_of_the_same_run(registered, trained):
    """What is judged is what is served: a version is judged by the evaluation that it was packaged with."""
    from biasline.evaluation.evaluate import evaluate
    from biasline.layout import write_text

    client, record = registered
    task, place = trained
    longer = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"max_new_tokens": 9})})
    write_text(place.resolved, longer.model_dump_json())
    evaluate(longer, place)
    again = record_of_workspace("small")
    publish(client, again)
    with pytest.raises(BiaslineError, match="its run was evaluated again after it was packaged"):
        promote(client, "small", LENIENT, "ann", "")
    version = register(client, again)
    assert again.fingerprint == record.fingerprint
    assert int(version.version) == 2
    assert int(promote(client, "small", LENIENT, "ann", "").version) == 2


def test_a_base_that_was_pinned_anew_is_another_base(registered, trained, workspace):
    """Other weights, the same biases: the delta would fit, and answer nonsense."""
    import torch
    from safetensors.torch import load_file, save_file

    from biasline.bases.create import create_pin
    from biasline.evaluation.evaluate import evaluate

    client, record = registered
    pin = workspace / "data/bases/tiny-bloom.json"
    weights = workspace / "data/bases/tiny-bloom/model.safetensors"
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    save_file({**tensors, name: torch.neg(tensors[name])}, weights, {"format": "pt"})
    pin.write_text(create_pin(str(weights.parent), pin).dumps())
    with pytest.raises(BiaslineError, match=r"trained on the base tiny-bloom \(.*this is tiny-bloom"):
        evaluate(*trained)
    import mlflow

    with pytest.raises(BiaslineError, match=r"model\.safetensors has changed since it was pinned"):
        mlflow.pyfunc.load_model("models:/biasline-small@candidate")
    record.pin.write_text(pin.read_text())
    with pytest.raises(BiaslineError, match="trained on the base"):
        register(client, record)


PICTURE = """
import json
from biasline.serving.registered import aliased
from biasline.tracking.store import connect
client = connect()
runs = {}
for version in client.search_model_versions("name = 'biasline-small'"):
    run = client.get_run(version.run_id)
    told = version.description.replace(version.run_id, "the run's id")
    runs[version.tags["biasline.fingerprint"]] = [run.data.params, run.data.metrics, told]
aliases = {name: aliased(client, "small", name) for name in ("candidate", "champion", "previous")}
aliases = {name: version and version.tags["biasline.fingerprint"] for name, version in aliases.items()}
print(json.dumps([runs, aliases], sort_keys=True))
"""
SYNC = """
from biasline.registry.sync import sync
from biasline.tracking.store import connect
print(sync(connect(), "small"))
"""


def fresh(script):
    """Output of a script in a process of its own: this one's client would hold a wiped store open."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_wiped_store_is_rebuilt_from_records_and_ledger(trained, workspace):
    # Not a copy of a store: that one's notes name the folder where it was made, and are compared here.
    client, record = connect(), record_of_workspace("small")
    register(client, record)
    promote(client, "small", LENIENT, "ann", "")
    register(client, another(record, "d" * 16))
    before = fresh(PICTURE)
    assert json.loads(before)[1] == {"candidate": "d" * 16, "champion": record.fingerprint, "previous": None}
    (workspace / "mlflow.db").unlink()
    shutil.rmtree(workspace / "mlartifacts")
    assert "2 versions registered anew" in fresh(SYNC)
    assert fresh(PICTURE) == before
    assert "registered anew" not in fresh(SYNC)
    assert fresh(PICTURE) == before


def test_a_broken_ledger_is_told(registered, trained):
    trained[1].ledger.write_text('{"decision": "promoted", "fingerprint": "x"}\nnot json\n')
    with pytest.raises(BiaslineError, match=r"promotions\.jsonl: line 2 is no entry"):
        sync(registered[0], "small")


@pytest.mark.slow
def test_the_packaged_model_answers_in_a_fresh_process_as_the_evaluation_did(registered, workspace, trained):
    import polars as pl

    client, _ = registered
    predictions = pl.read_parquet(trained[1].predictions)
    rows = predictions.select("instruction", "input").to_dicts()[:12]
    script = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model("models:/biasline-small@candidate")
rows = json.load(sys.stdin)
bare = [{"instruction": row["instruction"]} for row in rows if not row["input"]]
import biasline
none = [{**row, "input": None} for row in bare]
print(json.dumps([model.predict(rows), model.predict(bare), model.predict(none), biasline.__file__]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(rows),
        env={"PATH": "", "HOME": str(workspace), "MLFLOW_TRACKING_URI": f"sqlite:///{workspace / 'mlflow.db'}"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    answers, bare, none, code = json.loads(done.stdout.splitlines()[-1])
    assert str(workspace / "mlartifacts") in code  # it ran the code that it was packaged with
    assert answers == predictions["tuned"].to_list()[:12]
    assert bare == none == [answer for row, answer in zip(rows, answers, strict=True) if not row["input"]]


def test_the_package_tells_what_it_takes_by_an_example(registered, trained):
    import mlflow
    import polars as pl

    first = pl.read_parquet(trained[1].predictions).row(0, named=True)
    model = mlflow.pyfunc.load_model("models:/biasline-small@candidate")
    example = model.input_example
    assert example[0]["instruction"] == first["instruction"]
    assert list(model.predict(example)) == [first["tuned"]]
    assert {name: model.metadata.signature.inputs.input_dict()[name].required for name in ("instruction", "input")} == {
        "instruction": True,
        "input": False,
    }


def test_the_package_carries_no_base_and_no_pickle(registered, workspace):
    files = [path for path in (workspace / "mlartifacts").rglob("*") if path.is_file() and "/models/" in str(path)]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".bin", ".pt")]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 1


def test_an_evaluation_made_while_the_store_was_away_becomes_the_candidate(registered, trained, monkeypatch, capsys):
    """A further version of the same run; and nothing is promoted before it is there."""
    from biasline.registry.sync import register_or_note
    from biasline.tracking.store import StoreAway

    client, record = registered
    _, place = trained
    first = aliased(client, "small", CANDIDATE).version
    metrics = json.loads(place.metrics.read_text())
    metrics["tuned"]["exact_match"] = 0.123
    place.metrics.write_text(json.dumps(metrics))
    record = record_of_workspace("small")

    def away():
        raise StoreAway("gone")

    with monkeypatch.context() as patch:
        patch.setattr("biasline.registry.sync.connect", away)
        assert "`biasline sync` registers it" in register_or_note(record)
    assert "warning: not registered: gone" in capsys.readouterr().err
    with pytest.raises(BiaslineError, match="waits to be the candidate → biasline sync small"):
        promote(client, "small", LENIENT, "ann", "")
    assert any("made while the store was away" in line for line in sync(client, "small"))
    second = aliased(client, "small", CANDIDATE)
    assert int(second.version) == int(first) + 1
    assert promote(client, "small", LENIENT, "ann", "").promoted
    assert sync(client, "small") == []


def test_a_failure_that_is_not_the_stores_is_no_outage(registered, monkeypatch):
    from mlflow.exceptions import MlflowException

    from biasline.registry.sync import register_or_note

    def broken(*_):
        raise MlflowException("the package cannot be made")  # with MLflow's default code, INTERNAL_ERROR

    monkeypatch.setattr("biasline.registry.sync.register", broken)
    with pytest.raises(MlflowException, match="cannot be made"):
        register_or_note(registered[1])


def test_a_rollback_goes_back_one_champion_at_a_time(registered, trained):
    client, record = registered
    with pytest.raises(BiaslineError, match="no champion, there is none to go back to"):
        rollback(client, "small", "ann", "")
    promote(client, "small", LENIENT, "ann", "first")
    for letter in "bc":
        register(client, another(record, letter * 16))
        promote(client, "small", LENIENT, "ann", letter)
    now, was = rollback(client, "small", "bob", "it swears")
    assert (now.tags["biasline.fingerprint"], was.tags["biasline.fingerprint"]) == ("b" * 16, "c" * 16)
    assert aliased(client, "small", CHAMPION).version == now.version
    assert aliased(client, "small", PREVIOUS).tags["biasline.fingerprint"] == record.fingerprint
    rollback(client, "small", "bob", "so does this")
    assert aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == record.fingerprint
    assert aliased(client, "small", PREVIOUS) is None
    with pytest.raises(BiaslineError, match=f"{record.fingerprint} is the first champion"):
        rollback(client, "small", "bob", "")
    assert decisions(trained) == ["promoted"] * 3 + ["rolled back to"] * 2
    last = list(ledger.entries(trained[1].ledger))[-1]
    assert (last["by"], last["reason"], last["previous"]) == ("bob", "so does this", "b" * 16)
    assert promote(client, "small", LENIENT, "ann", "mended elsewhere").promoted  # the candidate is c still
    assert aliased(client, "small", PREVIOUS).tags["biasline.fingerprint"] == record.fingerprint


def test_a_rollback_that_was_cut_off_is_finished_by_the_next_command(registered, trained, monkeypatch):
    client, record = registered
    promote(client, "small", LENIENT, "ann", "")
    register(client, another(record, "b" * 16))
    promote(client, "small", LENIENT, "ann", "")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger, "append", lambda *args, append=ledger.append, **told: (append(*args, **told), cut_off()))
        rollback(client, "small", "bob", "")
    assert aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == "b" * 16
    sync(client, "small")
    assert aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == record.fingerprint
    assert aliased(client, "small", PREVIOUS) is None


def cut_off():
    raise KeyboardInterrupt


def test_a_dry_run_shows_the_verdict_and_changes_nothing(registered, trained):
    client, _ = registered
    decision = promote(client, "small", LENIENT, "ann", "", dry_run=True)
    assert decision.verdict.passed and not decision.promoted
    assert aliased(client, "small", CHAMPION) is None
    assert not trained[1].ledger.exists()


@pytest.mark.slow
def test_the_command_line_tells_dry_runs_and_rollbacks(registered, workspace):
    client, record = registered
    text = (workspace / "params.yaml").read_text()
    params = json.loads(text)
    params["tasks"]["small"]["gates"] = LENIENT_GATES
    (workspace / "params.yaml").write_text(json.dumps(params))
    version = aliased(client, "small", CANDIDATE).version

    def told(*arguments, code=0):
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == code, done.output
        return done.output

    assert f"biasline-small version {version} ({record.fingerprint}): would be promoted**" in told(
        "promote", "small", "--dry-run"
    )
    assert "it is champion now; `biasline history small` tells" in told("promote", "small")
    register(client, another(record, "b" * 16))
    told("promote", "small")
    assert f"({record.fingerprint}) is champion again, version" in told("rollback", "small", "--reason", "wrong")
    assert "rolled back to  " + record.fingerprint in told("history", "small")
    params["tasks"]["small"]["gates"] = {"floor": 1.0}
    (workspace / "params.yaml").write_text(json.dumps(params))
    assert "would be refused" in told("promote", "small", "--dry-run", code=1)


def test_a_git_that_does_not_answer_is_refused_where_all_must_be_committed(trained, workspace, monkeypatch):
    (workspace / ".gitignore").write_text(".biasline\n/data/small\nmlflow.db\nmlartifacts\n")
    for command in ("init -q", "add .", "-c user.name=t -c user.email=t@example.invalid commit -qm first"):
        subprocess.run(["git", *command.split()], check=True)
    client = connect()
    register(client, record_of_workspace("small"))
    gates = {**LENIENT_GATES, "uncommitted": "deny"}
    strict, lenient = (Task(base="b", data="d", gates=given) for given in (gates, {**gates, "uncommitted": "warn"}))

    def gate(task, **how):
        decision = promote(client, "small", task, "ann", "", **how)
        return decision.promoted, next(one for one in decision.verdict.gates if one.name.startswith("code and"))

    assert gate(strict, dry_run=True)[1].told == "all"
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    promoted, found = gate(strict)
    assert not promoted and found.word == "FAILED"
    assert "in no commit now: not known, since git says: fatal: detected dubious ownership in repository" in found.told
    promoted, found = gate(lenient)
    assert promoted and found.word == "warning" and "dubious ownership" in found.told
