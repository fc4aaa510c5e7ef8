"""A fleet in the registry: one run, one version, answers by tenant, a tenant's delta out of it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import stages.train
from biasline.bases.pin import file_sha256
from biasline.bitfit import BiasDelta, Deltas
from biasline.bitfit.deltas import file_of
from biasline.cli import app
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.evaluation.evaluate import evaluate
from biasline.jsonfile import dump_json, load_json
from biasline.layout import write_text
from biasline.params import Run
from biasline.registry import ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION
from biasline.registry.extract import extract
from biasline.registry.promote import promote
from biasline.registry.sync import register, sync
from biasline.registry.verify import verify
from biasline.serving.predictor import Predictor, asked_rows
from biasline.serving.registered import aliased, package_files, read_package
from biasline.serving.rescore import scored_on
from biasline.tokens.sets import tokenize
from biasline.tracking.publish import lost_files
from biasline.tracking.record import champion_files, record_of_workspace
from biasline.tracking.reuse import evaluation_work, training_work
from biasline.tracking.store import connect
from biasline.training import own
from biasline.training.kept_shared import train_from
from tests.conftest import FLEET_NAMES


@pytest.fixture
def registered(store, fleet):
    """The fleet with a version in the registry, and the client."""
    client = connect()
    register(client, record_of_workspace("fleet"))
    return client, aliased(client, "fleet", CANDIDATE)


def by_alone(package, rows):
    """Answers of each row by the delta that serves its tenant, applied alone."""
    found = []
    model = package.load(package.base())
    for row in rows:
        owner = row["shop"]
        delta = package.tenants.load(owner) if owner in package.tenants.own else package.delta
        with delta.applied(model):
            one = Predictor.of(package.task, delta.manifest, model, package.pin, package.base())
            found += one([row])
    return found


def test_a_version_answers_each_row_by_its_tenants_delta(registered, fleet):
    _, version = registered
    _, place = fleet
    package = read_package(version)
    assert len(package.tenants) == 4
    predictions = pl.read_parquet(place.predictions)
    rows = asked_rows(package.task, predictions)
    answers = package.predictor()(rows)
    assert answers == predictions["tuned"].to_list() == by_alone(package, rows)
    few = [{**rows[0], "shop": name} for name in FLEET_NAMES]
    assert package.predictor()(few) == by_alone(package, few)
    # Asked again of rows of tenants that it does not know, as a comparison with a later version does.
    for name in ("new", " ", None):
        asked = predictions.with_columns(shop=pl.lit(name, pl.String))
        assert scored_on(package, asked).height == predictions.height
    with pytest.raises(BiaslineError, match="the rows have no column 'shop'"):
        scored_on(package, predictions.drop("shop"))
    assert scored_on(package, predictions)["tuned_nll"].to_list() == pytest.approx(predictions["tuned_nll"].to_list())


def test_a_row_must_name_a_tenant_that_is_known(registered, fleet):
    predictor = read_package(registered[1]).predictor()
    shown = {"instruction": "Do you have tea?"}
    assert predictor.owners([{**shown, "shop": name} for name in (" one ", 7, 7.0, 7.5, True)]) == [
        *("one", "7", "7", "7.5", "true")
    ]
    ask = {"instruction": "Where do I find tea?"}
    with pytest.raises(BiaslineError, match="row 2: `shop` must name the tenant, not missing"):
        predictor([{**ask, "shop": "one"}, ask])
    with pytest.raises(BiaslineError, match="tenant 'One': not among the 4 that were trained"):
        predictor([{**ask, "shop": "One"}])
    task = predictor.task.model_copy(
        update={"tenants": predictor.task.tenants.model_copy(update={"unknown": "shared"})}
    )
    lenient = read_package(registered[1])
    object.__setattr__(lenient, "task", task)
    [new, few] = lenient.predictor()([{**ask, "shop": "new"}, {**ask, "shop": "few"}])
    assert new == few


def test_a_tenants_delta_comes_out_byte_for_byte(registered, fleet, tmp_path):
    client, version = registered
    _, place = fleet
    files, *_ = package_files(version)
    own = [name for name in FLEET_NAMES if name in Deltas(place.own).own]
    assert own
    for name in own:
        done = extract(client, "fleet", "candidate", name, tmp_path / file_of(name))
        assert (tmp_path / file_of(name)).read_bytes() == (place.own / file_of(name)).read_bytes()
        assert done.version == version.version and not done.told
        assert BiasDelta.load(tmp_path / file_of(name)).manifest.about["tenant"] == name
    result = CliRunner().invoke(app, ["extract", "fleet@candidate", "few", "few.safetensors"])
    assert result.exit_code == 0 and "it is the shared one, which serves this tenant" in result.output
    assert (tmp_path / "few.safetensors").read_bytes() == files["delta"].read_bytes()
    with pytest.raises(BiaslineError, match=r"few\.safetensors: is there already"):
        extract(client, "fleet", "candidate", "one", tmp_path / "few.safetensors")
    with pytest.raises(BiaslineError, match="version 1: tenant 'ONE': not among the 4"):
        extract(client, "fleet", "candidate", "ONE", tmp_path / "other")


@pytest.mark.slow
def test_what_knows_a_single_delta_refuses_a_fleet(registered, tmp_path):
    result = CliRunner().invoke(app, ["merge", "fleet@candidate", str(tmp_path / "out")])
    assert "a fleet of 4 tenants" in f"{result.output}{result.exception}" and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_fleet_is_promoted_asked_and_verified(registered, fleet):
    client, version = registered
    task, place = fleet
    assert promote(client, "fleet", task, "ann", "because").promoted
    assert aliased(client, "fleet", CHAMPION).version == version.version
    [entry] = ledger.entries(place.ledger)
    assert entry["tenants"]["count"] == 4 and {"own", "better", "worse", "undecided"} <= entry["tenants"].keys()
    assert entry["tenants"]["table_sha256"] == file_sha256(place.by_tenant / "table.parquet")
    runner = CliRunner()
    asked = ["predict", "fleet", "Where do I find tea?", "--tenant"]
    answers = {name: runner.invoke(app, [*asked, name]) for name in ("one", "few")}
    assert all(result.exit_code == 0 for result in answers.values())
    rows = [{"shop": name, "instruction": asked[2]} for name in answers]
    assert [result.stdout.strip() for result in answers.values()] == read_package(version).predictor()(rows)
    write_text(place.folder / "asked.jsonl", "\n".join(map(json.dumps, rows)))
    of_file = runner.invoke(app, ["predict", "fleet", "--file", str(place.folder / "asked.jsonl"), "--json"])
    assert [row["shop"] for row in json.loads(of_file.stdout)] == ["one", "few"]
    assert "row 1 names no tenant (shop)" in str(runner.invoke(app, asked[:3]).exception)
    _, wrong = verify(client, "fleet")
    assert not wrong
    files, *_ = package_files(version)
    files["tenants"].write_bytes(files["tenants"].read_bytes()[:-1] + b"x")
    _, wrong = verify(client, "fleet")
    assert wrong and "its deltas or the code beside them is not what was registered" in wrong[0]


@pytest.mark.slow
def test_its_run_tells_of_the_tenants_and_holds_their_deltas_in_one_file(registered, fleet, tmp_path):
    client, version = registered
    _, place = fleet
    run = client.get_run(version.run_id)
    told = load_json(place.metrics, "")["tenants"]
    assert run.data.metrics["tenants.count"] == 4 and run.data.params["tenants"] == "4"
    assert run.data.metrics["tenants.mean_tuned"] == told["macro"]["tuned"]
    held = {item.path for item in client.list_artifacts(run.info.run_id, "model")}
    made = {f"model/{name}" for name in ("delta.safetensors", "train.json", "tenants.parquet", "tenants.zip")}
    assert made <= held and "model/tenants" not in held
    path = client.download_artifacts(run.info.run_id, "model/tenants.zip", str(tmp_path))
    assert set(zipfile.ZipFile(path).namelist()) == {path.name for path in place.own.iterdir()}
    assert "evaluation/tenants/page.md" in {
        item.path for item in client.list_artifacts(run.info.run_id, "evaluation/tenants")
    }
    assert not lost_files(client, record_of_workspace("fleet"))


@pytest.mark.slow
def test_a_store_that_is_gone_is_built_again(registered, fleet, store, empty_store):
    client, version = registered
    before = read_package(version).predictor()([{"shop": "one", "instruction": "Do you have tea?"}])
    shutil.copy(empty_store, store)
    shutil.rmtree(store / "mlartifacts")
    client = connect()
    sync(client, "fleet")
    again = aliased(client, "fleet", CANDIDATE)
    assert again.tags["biasline.package"] == version.tags["biasline.package"]
    assert read_package(again).predictor()([{"shop": "one", "instruction": "Do you have tea?"}]) == before


@pytest.mark.slow
def test_both_stages_take_what_was_done_from_the_record(store, fleet):
    task, place = fleet
    record_of_workspace("fleet")
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    works = training_work(task, place), evaluation_work(task, place)
    for work in works:
        work.note()
        for out in work.outs:
            shutil.rmtree(out) if out.is_dir() else out.unlink()
    assert all(work.reuse() for work in (training_work(task, place), works[1]))
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == before


def keeping(task):
    return task.model_copy(update={"tenants": task.tenants.model_copy(update={"shared": "keep"})})


def test_rows_of_one_tenant_make_no_others_training_anew(registered, fleet, store, monkeypatch, capsys):
    client, _ = registered
    task, place = fleet
    with pytest.raises(BiaslineError, match="fleet: no champion is known here"):
        champion_files("fleet")
    promote(client, "fleet", task, "ann", "because")
    before = {path.name: path.read_bytes() for path in (place.delta, *place.own.glob("*.safetensors"))}
    champion = load_json(place.train_report, "")["fingerprint"]
    rows = [json.loads(line) for line in (store / "shops.jsonl").read_text().splitlines()]
    rows.insert(0, {"shop": "one", "instruction": "Is it open today?", "input": "", "output": "Yes, it is. 10"})
    rows += [{**row, "shop": "new"} for row in rows if row["shop"] == "three/3"]
    write_text(store / "shops.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    trained = []
    fit = own.fit_fleet
    monkeypatch.setattr(own, "fit_fleet", lambda *a: trained.extend(one.name for one in a[2]) or fit(*a))
    monkeypatch.setattr(own, "_better", lambda trained: True)
    kept = keeping(task)
    write_text(place.resolved, kept.model_dump_json())
    validate(kept, place)
    augment(kept, place)
    tokenize(kept, place)
    told = stages.train.train("fleet")
    assert trained == ["new", "one"] and f"shared delta kept, that of {champion}; 4 of 5 tenants" in told
    assert place.delta.read_bytes() == before[place.delta.name]
    same = [name for name in ("two & more", "three/3") if file_of(name) in before]
    assert same and all((place.own / file_of(name)).read_bytes() == before[file_of(name)] for name in same)
    assert (place.own / file_of("one")).read_bytes() != before.get(file_of("one"))
    report = load_json(place.train_report, "")
    assert report["shared"] == champion != report["fingerprint"] and report["tenants"]["count"] == 5
    evaluate(kept, place)
    register(client, record_of_workspace("fleet"))
    version = aliased(client, "fleet", CANDIDATE)
    assert read_package(version).predictor()([{"shop": "new", "instruction": "Is it open today?"}])
    assert promote(client, "fleet", kept, "ann", "more shops").verdict is not None
    assert "2 of 4 own trainings were done before: taken as they are" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_train_from_a_kept_shared_delta(registered, fleet, root):
    client, _ = registered
    task, place = fleet
    promote(client, "fleet", task, "ann", "because")
    before = {path.name: path.read_bytes() for path in place.own.iterdir()}
    shutil.rmtree(Path(".biasline/tenants"))
    kept = keeping(task)
    write_text(place.resolved, kept.model_copy(update={"run": Run(processes=2)}).model_dump_json())
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "stages.train", "fleet"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "shared delta kept, that of" in done.stdout, done.stderr
    assert {path.name: path.read_bytes() for path in place.own.iterdir()} == before
    assert len(list(Path(".biasline/tenants/fleet").glob("*.json"))) == 3


def test_a_kept_shared_delta_must_fit(registered, fleet):
    client, _ = registered
    task, place = fleet
    promote(client, "fleet", task, "ann", "because")
    summary = place.tokens / "summary.json"
    told = load_json(summary, "")
    write_text(summary, dump_json({**told, "template": "another"}))
    told_of = load_json(place.train_report, "")
    write_text(place.train_report, dump_json({**told_of, "tenants": {**told_of["tenants"], "failed": 1}}))
    work = training_work(task, place)
    work.note()
    assert not work.reuse(), "what failed is tried again"
    with pytest.raises(BiaslineError, match=r"champion's template differ from those of now.*tenants\.shared: train"):
        train_from(keeping(task), place, lambda _: lambda *_: None, champion_files("fleet"))
