"""The own deltas of a fleet's tenants: from the shared one, kept for the next time, chosen on validation rows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from biasline.bitfit import BiasDelta, Deltas
from biasline.errors import BiaslineError
from biasline.params import ResolvedTrain
from biasline.params.tenants import Tenants
from biasline.tokens.saved import read_summary, read_token_set
from biasline.training import fleet as fleets
from biasline.training import own
from biasline.training.batches import Plan
from biasline.training.fingerprint import fingerprint, training_modules
from biasline.training.fleet import Tenant, Trained
from biasline.training.own import _better, own_settings, tenants_of
from biasline.training.rates import resolve_learning_rates
from biasline.training.train import load_training, train
from tests.conftest import FLEET_NAMES


def started(_):
    return lambda *_: None


def files(place):
    return {path.relative_to(place.model): path.read_bytes() for path in place.model.rglob("*") if path.is_file()}


def test_a_fleet_has_a_shared_delta_and_those_of_its_tenants(fleet):
    _, place = fleet
    report = json.loads(place.train_report.read_text())
    table = pl.read_parquet(place.own_report)
    assert sorted(table["tenant"]) == sorted(FLEET_NAMES)
    told = {row["tenant"]: row for row in table.iter_rows(named=True)}
    assert told["few"]["serves"] == "shared" and told["few"]["why"] == "fewer than 20 training rows"
    assert told["few"]["steps"] == 0
    deltas = Deltas(place.own)
    assert set(deltas.own) | deltas.shared == set(FLEET_NAMES)
    own_ones = [name for name, row in told.items() if row["serves"] == "own"]
    assert own_ones and set(own_ones) == set(deltas.own)
    assert report["tenants"] == {"count": 4, "own": len(own_ones), "shared": 4 - len(own_ones), "failed": 0}
    shared = BiasDelta.load(place.delta)
    for name in own_ones:
        row, delta = told[name], deltas.load(name)
        assert row["own_loss"] < row["shared_loss"] and row["kept_step"] in (3, 6)
        assert delta.manifest.about["tenant"] == name and delta.manifest.base == shared.manifest.base
        assert delta.tensors.keys() == shared.tensors.keys()
        assert any(not torch.equal(delta.tensors[key], shared.tensors[key]) for key in delta.tensors)


def test_tokens_know_whose_rows_they_are(fleet):
    task, place = fleet
    names = read_summary(place)["tenants"]
    assert names == sorted(FLEET_NAMES)
    owners = dict(pl.read_parquet(place.split("train")).select("row", "shop").iter_rows())
    tokens = read_token_set(place, "train")
    assert [names[number] for number in tokens["tenant"]] == [owners[row] for row in tokens["row"]]
    loaded = load_training(task, place)
    tenants = tenants_of(names, loaded.sets)
    assert sorted(row for tenant in tenants for row in tenant.train) == list(range(len(tokens)))
    assert all(tokens["tenant"][row] == number for number, tenant in enumerate(tenants) for row in tenant.train)


def test_what_was_trained_before_is_taken_byte_for_byte(fleet, monkeypatch):
    task, place = fleet
    before = files(place)
    shutil.rmtree(place.model)
    asked = []
    monkeypatch.setattr(own, "fit_fleet", lambda *arguments: asked.append(arguments) or iter(()))
    train(task, place, started)
    assert not asked and files(place) == before


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(fleet, monkeypatch, workspace):
    task, place = fleet
    before = files(place)
    shutil.rmtree(place.model)
    shutil.rmtree(workspace / ".biasline" / "tenants")

    def killed(*arguments):
        yield next(iter(fleets.fit_fleet(*arguments)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(own, "fit_fleet", killed)
        with pytest.raises(KeyboardInterrupt):
            train(task, place, started)
    assert not place.model.exists()
    assert len(list((workspace / ".biasline" / "tenants" / "fleet").glob("*.json"))) == 1
    train(task, place, started)
    assert files(place) == before


@pytest.mark.slow
def test_a_stage_that_is_killed_in_mid_fleet_ends_with_the_same_bytes(fleet, root, workspace):
    _, place = fleet
    before, kept = files(place), workspace / ".biasline" / "tenants"
    for folder in (place.model, kept, workspace / ".biasline" / "records", workspace / ".biasline" / "checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "stages.train", "fleet"]
    begun = subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL)
    while not list(kept.rglob("*.json")):
        assert begun.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert not place.model.exists() and len(list(kept.rglob("*.json"))) < 3
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0 and "own trainings were done before: taken as they are" in again.stdout, again.stderr
    assert files(place) == before


@pytest.mark.slow
def test_a_kept_training_that_is_damaged_is_done_again(fleet, workspace):
    task, place = fleet
    before = files(place)
    for path in (workspace / ".biasline" / "tenants" / "fleet").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])
    train(task, place, started)
    assert files(place) == before


@pytest.mark.slow
def test_several_processes_deal_the_tenants_and_give_the_same_bytes(fleet, root, workspace):
    _, place = fleet
    shutil.rmtree(workspace / ".biasline" / "tenants")
    program = (
        "from biasline.params import Run; from biasline.training.runtime.launch import started_elsewhere as start; "
    )
    program += "start(Run(processes=2), 'tests.training.many_tenants', '2')"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]), "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    dealt = [json.loads((workspace / f"trained-{number}.json").read_text()) for number in range(2)]
    assert sorted(dealt[0] + dealt[1]) == sorted({"one", "two & more", "three/3"}) and len(dealt[1]) == 1
    made = {path.name: path.read_bytes() for path in (workspace / "draft" / "tenants").iterdir()}
    assert made == {path.name: path.read_bytes() for path in place.own.iterdir()}
    assert pl.read_parquet(workspace / "draft" / "tenants.parquet").equals(pl.read_parquet(place.own_report))
    kept = list((workspace / ".biasline" / "tenants" / "fleet").glob("*.json"))
    assert len(kept) == 3


@given(st.lists(st.integers(1, 400), max_size=30), st.integers(1, 6))
def test_tenants_are_dealt_by_their_steps(sizes, parts):
    tenants = [Tenant(f"t{number}", range(size)) for number, size in enumerate(sizes)]
    settings = ResolvedTrain(learning_rate=1e-3, head_learning_rate=1e-3, batch_size=8, epochs=3, min_steps=10)
    made = own.dealt(tenants, settings, parts)
    assert len(made) == parts
    assert sorted(tenant.name for part in made for tenant in part) == sorted(tenant.name for tenant in tenants)
    assert all(part == [tenant for tenant in tenants if tenant in part] for part in made)
    steps = [[Plan.of(len(tenant.train), settings).total_steps for tenant in part] for part in made]
    if len(tenants) >= parts:
        largest = max(map(max, filter(None, steps)))
        assert max(map(sum, steps)) - min(map(sum, steps)) <= largest


def failing(*names):
    def fit(*arguments):
        for trained in fleets.fit_fleet(*arguments):
            if trained.tenant in names:
                yield Trained(trained.tenant, None, 2, 0, 1.0, None, None, None, "step 3: not finite on the rows 7, 9")
            else:
                yield trained

    return fit


def test_one_that_fails_is_set_aside_with_its_rows(fleet, monkeypatch, capsys, workspace):
    task, place = fleet
    shutil.rmtree(workspace / ".biasline" / "tenants")
    monkeypatch.setattr(own, "fit_fleet", failing("three/3"))
    allowing = task.model_copy(update={"tenants": task.tenants.model_copy(update={"max_failed": 0.5})})
    train(allowing, place, started)
    assert "'three/3': step 3: not finite on the rows 7, 9: the shared delta serves it" in capsys.readouterr().out
    table = {row["tenant"]: row for row in pl.read_parquet(place.own_report).iter_rows(named=True)}
    assert table["three/3"]["serves"] == "shared" and "rows 7, 9" in table["three/3"]["why"]
    assert json.loads(place.train_report.read_text())["tenants"]["failed"] == 1
    with pytest.raises(BiaslineError, match=r"1 of 3 tenants' own trainings failed, tenants\.max_failed allows 0"):
        train(task, place, started)


def test_own_trainings_have_parameters_of_their_own(fleet):
    task, place = fleet
    settings = resolve_learning_rates(task.train, load_training(task, place).model)
    assert own_settings(task, settings).min_steps == 6
    plain = task.model_copy(update={"tenants": Tenants(column="shop")})
    found = own_settings(plain, settings)
    assert (found.min_steps, found.batch_size, found.learning_rate) == (100, 8, 1e-2)
    faster = plain.model_copy(update={"tenants": Tenants(column="shop", learning_rate=0.02)})
    assert own_settings(faster, settings).learning_rate == 0.02
    assert own_settings(plain.model_copy(update={"kind": "classification"}), settings).min_steps == 40


def losses(start, own, accuracies=(None, None)):
    return Trained("t", None, 6, 6, start, own, *accuracies)


def test_what_serves_is_the_better_one_on_validation_rows():
    assert _better(losses(2.0, 1.9)) and not _better(losses(2.0, 2.0)) and not _better(losses(2.0, 2.1))
    # Of labels, right ones count first.
    assert _better(losses(0.5, 0.6, (0.7, 0.8))) and not _better(losses(0.6, 0.5, (0.8, 0.7)))
    assert _better(losses(0.6, 0.5, (0.8, 0.8)))


def test_what_fleets_do_is_part_of_their_fingerprints_alone(fleet):
    task, place = fleet
    assert not {"training.own", "bitfit.bank"} & training_modules("bitfit", "instruction").keys()
    assert {"training.own", "training.fleet", "bitfit.bank"} <= training_modules("bitfit", "instruction", True).keys()
    pin = load_training(task, place).pin
    longer = task.model_copy(update={"tenants": task.tenants.model_copy(update={"min_steps": 7})})
    lenient = task.model_copy(update={"tenants": task.tenants.model_copy(update={"unknown": "shared"})})
    assert fingerprint(task, pin, place) == fingerprint(lenient, pin, place) != fingerprint(longer, pin, place)
