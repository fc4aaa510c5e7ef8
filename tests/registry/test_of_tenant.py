"""What versions of a fleet know of one tenant."""

import json

import pytest
from typer.testing import CliRunner

from biasline.bitfit import Deltas
from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.registry.aliases import CANDIDATE
from biasline.registry.of_tenant import in_words, tenant_history, tenant_told
from biasline.registry.promote import promote
from biasline.registry.sync import register
from biasline.registry.why import why
from biasline.serving.registered import aliased
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import FLEET_NAMES


@pytest.mark.slow
def test_a_version_tells_what_serves_a_tenant_and_how_well(store, fleet):
    task, place = fleet
    client = connect()
    register(client, record_of_workspace("fleet"))
    version = aliased(client, "fleet", CANDIDATE)
    deltas = Deltas(place.own)
    for name in FLEET_NAMES:
        told = tenant_told(client, version, name)
        assert told["serves"] == ("own" if name in deltas.own else "shared")
        assert bool(told["sha256"]) == (name in deltas.own) and told["why"] in in_words(told)
        assert "verdict" in told["test"] and "why" not in told["test"]
    with pytest.raises(BiaslineError, match="version 1: tenant 'One': not among the 4 that it knows"):
        tenant_told(client, version, "One")

    runner = CliRunner()
    assert not list(tenant_history(client, "fleet", "one"))
    promote(client, "fleet", task, "ann", "because")
    [entry] = tenant_history(client, "fleet", "one")
    assert (entry["decision"], entry["by"], entry["version"]) == ("promoted", "ann", version.version)
    line = runner.invoke(app, ["history", "fleet", "--tenant", "three/3"]).stdout
    assert f"version 1 promoted: {in_words(tenant_told(client, version, 'three/3'))}" in line
    with pytest.raises(BiaslineError, match="tenant 'new': not among the 4"):
        list(tenant_history(client, "fleet", "new"))
    with pytest.raises(BiaslineError, match="did you mean 'one'"):
        tenant_told(client, version, "ONE")
    page = runner.invoke(app, ["why", "fleet/three/3"]).stdout
    assert "| tenant | three/3: " in page and "# biasline-fleet version 1 (candidate, champion)" in page
    found = json.loads(runner.invoke(app, ["why", "fleet@candidate/one", "--json"]).stdout)
    assert found["tenant"] == json.loads(json.dumps(tenant_told(client, version, "one")))
    assert "tenant" not in why(client, "fleet")


def test_a_task_of_one_has_no_tenants(registered_small):
    client, _ = registered_small
    with pytest.raises(BiaslineError, match="biasline-small version 1: is of one, not of a fleet"):
        tenant_told(client, aliased(client, "small", CANDIDATE), "one")
    assert TaskPlace("small").delta.is_file()
