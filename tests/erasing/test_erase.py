"""`biasline erase`: what is said, what is refused, and what is left after each kind of having had a row."""

import json
from types import SimpleNamespace

import polars as pl
import pytest
from typer.testing import CliRunner

import stages.train
from biasline.bases.pin import file_sha256
from biasline.bitfit.deltas import file_of
from biasline.cli import app
from biasline.data.augment import augment
from biasline.data.removal import remove_records
from biasline.data.validate import validate
from biasline.erasing import erase as room
from biasline.erasing.plan import Request
from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.layout import TaskPlace, write_text
from biasline.params import Task, read_params
from biasline.registry import ledger
from biasline.registry.promote import promote
from biasline.registry.sync import register, register_workspace
from biasline.serving.registered import aliased, read_package, versions_of
from biasline.tokens.sets import tokenize
from biasline.tracking.record import record_of_workspace, row_hash
from biasline.tracking.store import connect
from tests.conftest import LENIENT_GATES, run_stages

PLACE = TaskPlace("small")


def small(workspace):
    return read_params(workspace / "params.yaml").tasks["small"]


@pytest.fixture
def project(registered_small, workspace, monkeypatch):
    """The task `small` with a champion; DVC's part is done in this process."""
    client, record = registered_small
    params = json.loads((workspace / "params.yaml").read_text())
    params["tasks"]["small"]["gates"] = LENIENT_GATES
    (workspace / "params.yaml").write_text(json.dumps(params))
    ran = []

    def run(command):
        ran.append(command)
        if "--force" not in command:
            run_stages(small(workspace), PLACE)
            record_of_workspace("small").take(PLACE, trained=True)  # as the stage does
        register_workspace(PLACE)

    monkeypatch.setattr(room, "_run", run)
    record.note_rows(PLACE)
    promote(client, "small", small(workspace), "ann", "first")
    return client, record, workspace, ran


def split_rows(workspace, split):
    return pl.read_parquet(workspace / PLACE.split(split)).select("row", "instruction", "input").to_dicts()


def named(workspace, rows):
    gone = [{name: row[name] for name in ("instruction", "input")} for row in rows]
    (workspace / "gone.json").write_text(json.dumps(gone))
    return workspace / "gone.json"


def erased(project, rows, told=None, **options):
    client, _, workspace, _ = project
    request = Request("small", named(workspace, rows), "", by="ann", reason="asked to", **options)
    return room.erase(client, request, small(workspace), (told if told is not None else []).append)


def test_a_training_row_goes_with_the_training(project):
    client, record, workspace, ran = project
    row = split_rows(workspace, "train")[3]
    raw = (workspace / "rows.jsonl").read_bytes().splitlines()
    told = []
    receipt = erased(project, [row], told)
    assert receipt["rows"] == 1 and receipt["gone"] == [record.fingerprint] and len(ran) == 1
    assert (workspace / "rows.jsonl").read_bytes().splitlines() == raw[: row["row"] - 1] + raw[row["row"] :]
    made = record_of_workspace("small")
    assert made.fingerprint != record.fingerprint and not record.folder.exists()
    assert aliased(client, "small", "champion").tags["biasline.fingerprint"] == made.fingerprint
    assert [version.tags["biasline.fingerprint"] for version in versions_of(client, "small")] == [made.fingerprint]
    assert [one["decision"] for one in ledger.entries(PLACE.ledger)] == ["promoted", "promoted", "erased"]
    key = " ".join(f"{row['instruction']} {row['input']}".casefold().split())
    assert made.splits_with({row_hash(key)}) == {}
    assert any("1 trainings had them: trained on 1" in line for line in told)
    assert not (workspace / ".biasline/erase/small.json").exists()
    assert not CliRunner().invoke(app, ["verify", "small"]).exit_code
    with pytest.raises(BiaslineError, match="no row is like that"):
        erased(project, [row])


def test_a_row_in_quarantine_leaves_the_training_and_its_champion(project):
    client, record, workspace, ran = project
    with (workspace / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "say it", "input": "", "output": ""}) + "\n")
    run_stages(small(workspace), PLACE)
    register_workspace(PLACE)
    assert record_of_workspace("small").fingerprint == record.fingerprint
    record.note_rows(PLACE)
    receipt = erased(project, [{"instruction": "say it", "input": ""}])
    assert receipt["gone"] == [record.fingerprint] == [receipt["fingerprint"]]
    assert [command[2] for command in ran] == [f"register@{'small'}", "--force"]
    champion = aliased(client, "small", "champion")
    assert champion.tags["biasline.fingerprint"] == record.fingerprint
    assert [one["decision"] for one in ledger.entries(PLACE.ledger)] == ["promoted", "erased", "promoted"]
    assert not CliRunner().invoke(app, ["verify", "small"]).exit_code
    assert "say it" not in (record.files / "quality.md").read_text()


def test_a_training_that_never_had_the_row_stays(project):
    client, record, workspace, ran = project
    with (workspace / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "a new thing to say", "input": "", "output": "said"}) + "\n")
    receipt = erased(project, [{"instruction": "a new thing to say", "input": ""}])
    assert receipt["gone"] == [] and record.folder.exists()
    assert aliased(client, "small", "champion").tags["biasline.fingerprint"] == record.fingerprint


def test_where_the_gates_refuse_nothing_is_deleted_until_that_is_said(project):
    client, record, workspace, ran = project
    params = json.loads((workspace / "params.yaml").read_text())
    params["tasks"]["small"]["gates"] = {**LENIENT_GATES, "floor": 1.0}
    (workspace / "params.yaml").write_text(json.dumps(params))
    row, told = split_rows(workspace, "train")[3], []
    assert erased(project, [row], told) is None and "no gate lets the candidate take its place" in told[-1]
    assert record.folder.exists() and str(aliased(client, "small", "champion").version) == "1"
    with pytest.raises(BiaslineError, match="another erasure was begun and is not finished"):
        erased(project, split_rows(workspace, "train")[5:6])
    receipt = erased(project, [row], withdraw=True)
    assert receipt["gone"] == [record.fingerprint] and len(ran) == 1
    assert aliased(client, "small", "champion") is None and not record.folder.exists()
    assert not CliRunner().invoke(app, ["verify", "small"]).exit_code


def test_all_rows_are_refused_unless_that_is_meant(project):
    client, _, workspace, _ = project
    request = Request("small", None, {"skill": ("no such",)}, by="ann", reason="x")
    with pytest.raises(BiaslineError, match="no row is like that"):
        room.plan(client, request, small(workspace))
    count = len((workspace / "rows.jsonl").read_text().splitlines())
    request = Request("small", None, "skill is not null or skill is null", by="ann", reason="x")
    with pytest.raises(
        BiaslineError,
        match=f"{count} of {count} rows of rows.jsonl are named, more than half → if that is meant: --all",
    ):
        room.erase(client, request, small(workspace))
    assert not list((workspace / ".biasline/erase").glob("*.json"))


def test_what_a_command_lacks_is_told(project):
    for options, word in (
        ([], "--rows or --where"),
        (["--where", "a=b"], "--reason: the ledger keeps it"),
        (["--rows", "none.csv", "--reason", "x"], "none.csv: no such file"),
    ):
        said = CliRunner().invoke(app, ["erase", "small", *options])
        assert said.exit_code and word in said.output + str(said.exception), said.output
    skill = json.loads((project[2] / "rows.jsonl").read_text().splitlines()[0])["skill"]
    said = CliRunner().invoke(app, ["erase", "small", "--where", f"skill={skill}", "--dry-run", "--json"])
    told = json.loads(said.stdout)
    assert sum(told["splits"].values()) == told["rows"]
    assert told["rows"] > 1 and told["aliases"].keys() == {"champion", "candidate"} and told["trainings"]
    assert any("name their folders (--traffic)" in one for one in told["unreached"])


def test_a_tenant_is_erased_and_the_others_deltas_stay_as_they_are(store, fleet, monkeypatch):
    task, place = fleet
    client = connect()
    record = record_of_workspace("fleet")
    record.note_rows(place)
    register(client, record)
    promote(client, "fleet", task, "ann", "first")
    before = {path.name: path.read_bytes() for path in (place.delta, *place.own.glob("*.safetensors"))}
    params = json.loads((store / "params.yaml").read_text())
    params["tasks"]["fleet"]["tenants"]["shared"] = "keep"
    (store / "params.yaml").write_text(json.dumps(params))
    kept = read_params(store / "params.yaml").tasks["fleet"]

    def run(command):
        write_text(place.resolved, kept.model_dump_json())
        validate(kept, place)
        augment(kept, place)
        tokenize(kept, place)
        stages.train.train("fleet")
        evaluate(kept, place)
        register_workspace(place)

    monkeypatch.setattr(room, "_run", run)
    told = []
    request = Request("fleet", None, {"shop": "three/3"}, by="ann", reason="left us")
    receipt = room.erase(client, request, kept, told.append)
    assert receipt["rows"] == 44 and receipt["gone"] == [record.fingerprint] and receipt["shared"] == "kept"
    assert any(line.startswith("NOT reached: the fleet's shared delta") for line in told)
    after = {path.name: path.read_bytes() for path in (place.delta, *place.own.glob("*.safetensors"))}
    gone = file_of("three/3")
    assert after == {name: content for name, content in before.items() if name != gone} and len(after) > 1
    own = [path.read_bytes() for path in (store / ".biasline/tenants/fleet").glob("*.safetensors")]
    assert before.get(gone) not in own and "three/3" not in (store / "shops.jsonl").read_text()
    package = read_package(aliased(client, "fleet", "champion"))
    assert len(package.tenants) == 3 and "three/3" not in package.tenants.own


def test_after_a_crash_the_very_records_that_were_planned_are_gone_and_no_others(project, monkeypatch):
    client, record, workspace, ran = project
    row = split_rows(workspace, "train")[3]
    raw = (workspace / "rows.jsonl").read_bytes().splitlines()
    note = room._Journal.note

    def cut_off(self, **values):
        if "since" in values:
            raise KeyboardInterrupt
        note(self, **values)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(room._Journal, "note", cut_off)
        erased(project, [row])
    left = raw[: row["row"] - 1] + raw[row["row"] :]
    assert (workspace / "rows.jsonl").read_bytes().splitlines() == left and not ran
    (workspace / "rows.jsonl").write_bytes(b"\n".join(raw) + b"\n ")  # somebody puts it back meanwhile
    with pytest.raises(BiaslineError, match="changed since the erasure was begun"):
        erased(project, [row])
    (workspace / "rows.jsonl").write_bytes(b"\n".join(left) + b"\n")
    assert erased(project, [row])["gone"] == [record.fingerprint]


def test_a_row_that_only_trainings_have_is_erased_there(project):
    client, record, workspace, ran = project
    row = split_rows(workspace, "train")[3]
    raw = (workspace / "rows.jsonl").read_bytes().splitlines()
    (workspace / "rows.jsonl").write_bytes(b"\n".join(raw[: row["row"] - 1] + raw[row["row"] :]) + b"\n")
    receipt = erased(project, [row])
    assert receipt["rows"] == 0 and receipt["gone"] == [record.fingerprint] and not record.folder.exists()


def test_of_two_files_the_second_is_finished_after_a_crash(tmp_path):
    files = {}
    for name in ("a", "b"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{name} {n}", "label": "x"}) + "\n" for n in range(3)))
        files[path] = [str(path), file_sha256(path), [1]]
    journal = SimpleNamespace(
        told={"files": list(files.values()), "refused": ["a 1", "b 1"]}, path=tmp_path / "journal"
    )
    task = Task(kind="classification", base="b.json", data="raw")
    one, two = files
    remove_records(one, {1}, lambda *_: True)
    room._take_out(journal, task, tmp_path)
    assert "a 1" not in one.read_text() and "b 1" not in two.read_text() and "b 2" in two.read_text()
    two.write_text(two.read_text() + json.dumps({"text": "B  1", "label": "x"}) + "\n")
    with pytest.raises(BiaslineError, match="rows that are to go are still there"):
        room._take_out(journal, task, tmp_path)
