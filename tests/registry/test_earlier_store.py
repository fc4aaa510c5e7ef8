"""A store of before kinds, methods and serving had rooms of their own: its versions go on.

`earlier_store.tar.xz` has what commit e3d68c5 left in a project of 200 demo rows: two versions of the task `small`, of
which the second is champion, the records of both, and the ledger. Figures are left out, and the base is the demo's.
"""

import tarfile
from pathlib import Path

import polars as pl
import pytest

from biasline.layout import TaskPlace
from biasline.params import read_params
from biasline.registry import ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION, PREVIOUS
from biasline.registry.ask import ask
from biasline.registry.promote import promote, rollback
from biasline.registry.sync import register
from biasline.registry.verify import verify
from biasline.serving.package_check import check_package
from biasline.serving.registered import aliased, read_package
from biasline.serving.rescore import scored_on
from biasline.tracking.record import Record, record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import run_stages

FIRST, SECOND = "8127afcc09fc7892", "b4a5add3d5a6b504"


@pytest.fixture
def client(workspace):
    with tarfile.open(Path(__file__).with_name("earlier_store.tar.xz")) as packed:
        # Python 3.11 learned of filters in its fourth release.
        packed.extractall(workspace, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return connect()


def fingerprint(version):
    return version.tags["biasline.fingerprint"]


@pytest.mark.slow
def test_it_follows_its_home_and_is_sound(client):
    assert fingerprint(aliased(client, "small", CHAMPION)) == fingerprint(aliased(client, "small", CANDIDATE)) == SECOND
    assert fingerprint(aliased(client, "small", PREVIOUS)) == FIRST
    right, wrong = verify(client, "small")
    assert (len(right), wrong) == (3, [])


@pytest.mark.parametrize("alias", [CHAMPION, PREVIOUS])
def test_versions_give_the_answers_that_they_were_evaluated_by(client, alias):
    version = aliased(client, "small", alias)
    evaluated = pl.read_parquet(Record("small", fingerprint(version)).file(TaskPlace("small").predictions))
    rows = evaluated.select("instruction", "input").to_dicts()
    for shared in (True, False):
        [(task, answers)] = ask({"small": rows}, alias, shared, lambda _: None)
        assert (task, answers) == ("small", evaluated["tuned"].to_list())
    again = scored_on(read_package(version), evaluated)
    assert again.select("row", "tuned", "tuned_exact").equals(evaluated.select("row", "tuned", "tuned_exact"))
    assert (again["tuned_nll"] - evaluated["tuned_nll"]).abs().max() < 1e-4


@pytest.mark.slow
def test_a_version_loads_with_the_code_that_was_packaged(client, workspace, monkeypatch):
    # The code of then looks for the base where it lay when the version was packaged, or here.
    monkeypatch.setenv("BIASLINE_BASES", str(workspace / "data" / "bases"))
    version = aliased(client, "small", CHAMPION)
    check_package(Record("small", SECOND), f"models:/{version.name}/{version.version}")


@pytest.mark.slow
def test_a_new_version_is_compared_with_them_and_rolled_back_to_them(client):
    task, place = read_params(Path("params.yaml")).tasks["small"], TaskPlace("small")
    run_stages(task, place)
    register(client, record_of_workspace("small"))
    decision = promote(client, "small", task, by="tests", reason="by today's code")
    assert decision.promoted, decision.verdict
    [beside] = [gate for gate in decision.verdict.gates if gate.name == "not worse than the champion"]
    assert f"version 2 ({SECOND[:8]})" in beside.told and "over 15 rows" in beside.told
    assert fingerprint(aliased(client, "small", PREVIOUS)) == SECOND
    rollback(client, "small", by="tests", reason="the earlier one")
    assert fingerprint(aliased(client, "small", CHAMPION)) == SECOND
    entries = ledger.entries(place.ledger)
    assert [entry["decision"] for entry in entries] == ["nominated", "promoted"] * 2 + ["promoted", "rolled back to"]
