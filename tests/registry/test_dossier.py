"""`biasline dossier`: one folder that tells all of a version, and what could not be had."""

import json
import shutil
import sys

import polars as pl
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from typer.testing import CliRunner

from biasline.bases.pin import file_sha256
from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.figures.canvas import new_figure
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry import signing
from biasline.registry.document import PNG, as_html, lowered
from biasline.registry.dossier import dossier
from biasline.registry.promote import promote
from biasline.registry.sync import register
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from biasline.tracking.watches import log_look
from tests.conftest import LENIENT_GATES
from tests.registry.keys import make_keys
from tests.registry.test_restore import purge

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)
REASON = "用户满意 <script>alert(1)</script> | ![x](http://example.org/x.png)"


@pytest.fixture
def promoted(registered_small):
    client, record = registered_small
    promote(client, "small", LENIENT, "ann", REASON)
    return client, record


def run(*arguments):
    return CliRunner().invoke(app, ["dossier", *map(str, arguments)])


def check_bom(folder):
    text = (folder / "bom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return json.loads(text)


def check_statement(folder):
    text = (folder / "provenance.json").read_text(encoding="utf-8")
    read = json_format.Parse(text, statement_pb2.Statement())
    Statement.copy_from_pb(read).validate()
    told = json.loads(text)
    json_format.ParseDict(told["predicate"], provenance_pb2.Provenance())
    assert told["_type"] == "https://in-toto.io/Statement/v1" and told["predicateType"].endswith("provenance/v1")
    return told


def test_it_tells_all_of_a_champion_and_twice_the_same(promoted, workspace):
    client, record = promoted
    private, public = make_keys(workspace)
    signing.sign(client, "small", "champion", private)
    figure, axes = new_figure(2, 1)
    axes.plot([1, 2])
    figure.savefig(workspace / "loss.png")
    run_id = client.get_model_version_by_alias("biasline-small", "champion").run_id
    client.log_artifact(run_id, str(workspace / "loss.png"), "figures")
    report = {"verdict": "1 changed", "rows": 150, "before": 15, "tenants": {}}
    report["checks"] = [{"name": "length of texts", "told": "40 → 90", "alarms": True}]
    (workspace / "look").mkdir()
    (workspace / "look/report.json").write_text(json.dumps(report))
    log_look(client, "small", {"alarms": 1.0}, {"biasline.fingerprint": record.fingerprint}, workspace / "look")

    done = run("small", workspace / "one", "--pdf", "--signature", public)
    assert done.exit_code == 0, done.output
    names = {
        "dossier.md",
        "dossier.html",
        "dossier.pdf",
        "bom.cdx.json",
        "provenance.json",
        "signature.json",
        "figures",
    }
    assert {path.name for path in (workspace / "one").iterdir()} == names
    dossier(client, "small", "champion", workspace / "two", pdf=True, public=public)
    for path in (path for path in (workspace / "one").rglob("*") if path.is_file()):
        assert path.read_bytes() == (workspace / "two" / path.relative_to(workspace / "one")).read_bytes(), path.name

    page = (workspace / "one/dossier.md").read_text(encoding="utf-8")
    assert page.startswith("# Dossier of biasline-small version 1\n")
    for part in (
        "| let out | ",
        "promoted, by ann: 用户满意 ",
        "| quarantine | 4 of 200 rows",
        "A bias-only delta of `tiny-bloom` for the task `small`",
        "### Slices (exact match)",
        "| latency | warning | not measured",
        "**1 changed**, by 150 rows of users",
        "- length of texts: 40 → 90",
        "- Biases adapt what the base can do already",
        "Gate “latency” let it pass with a warning",
        "It holds: signed by the key ",
        "![loss](figures/loss.png)",
        "the requirements.lock that it was made with",
    ):
        assert part in page, part
    html = (workspace / "one/dossier.html").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;" in html and "用户满意" in html
    assert "example.org" not in html.replace("![x](http://example.org", "") and 'src="data:image/png;base64,' in html
    assert 'src="http' not in html and "default-src 'none'" in html
    assert (workspace / "one/dossier.pdf").read_bytes().startswith(b"%PDF-")
    assert str(workspace) not in page + (workspace / "one/provenance.json").read_text()


def test_the_bill_of_materials_names_model_base_data_and_libraries(promoted, workspace):
    client, record = promoted
    lock = "torch==2.13.0\nruamel.yaml.clib==0.2.15\n"
    (workspace / "requirements.lock").write_text(lock)
    lineage = record.folder / "lineage.json"
    sha256 = file_sha256(workspace / "requirements.lock")
    version = client.get_model_version_by_alias("biasline-small", "champion")
    client.set_tag(version.run_id, "lock.sha256", sha256)
    lines = dossier(client, "small", "champion", workspace / "out")
    assert len(lines) == 1 and lineage.is_file()
    bom = check_bom(workspace / "out")
    model = bom["metadata"]["component"]
    assert (
        model["type"] == "machine-learning-model"
        and model["hashes"][0]["content"] == version.tags["biasline.delta_sha256"]
    )
    card = model["modelCard"]
    assert card["modelParameters"]["modelArchitecture"] == "bloom"
    tuned = [one for one in card["quantitativeAnalysis"]["performanceMetrics"] if one["slice"] == "test rows, tuned"]
    assert {"type", "value", "confidenceInterval"} < set(tuned[0])
    assert any(one["slice"].startswith("skill = ") for one in card["quantitativeAnalysis"]["performanceMetrics"])
    assert any("Biases adapt" in limit for limit in card["considerations"]["technicalLimitations"])
    parts = {part["name"]: part for part in bom["components"]}
    pin = json.loads((workspace / "data/bases/tiny-bloom.json").read_text())
    files = {one["name"]: one["hashes"][0]["content"] for one in parts["tiny-bloom"]["components"]}
    assert files == pin["files"]
    assert parts["rows.jsonl"]["hashes"][0]["content"] == file_sha256(workspace / "rows.jsonl")
    assert parts["rows.jsonl"]["data"][0]["type"] == "dataset" and "test rows of rows.jsonl" in parts
    libraries = {part["purl"] for part in bom["components"] if part["type"] == "library"}
    assert libraries == {"pkg:pypi/torch@2.13.0", "pkg:pypi/ruamel.yaml.clib@0.2.15"}

    told = check_statement(workspace / "out")
    [delta] = workspace.glob("mlartifacts/**/models/*/artifacts/artifacts/delta.safetensors")
    subjects = {one["name"]: one["digest"]["sha256"] for one in told["subject"]}
    assert subjects["artifacts/delta.safetensors"] == file_sha256(delta) and "code/biasline/errors.py" in subjects
    definition, details = told["predicate"]["buildDefinition"], told["predicate"]["runDetails"]
    assert definition["externalParameters"]["parameters"]["train"]["learning_rate"] == 1e-2
    assert isinstance(definition["externalParameters"]["parameters"]["train"]["seed"], int)
    needed = {one["name"]: one.get("digest", {}) for one in definition["resolvedDependencies"]}
    assert needed["data"]["sha256"] == file_sha256(workspace / "rows.jsonl")
    assert needed["base/model.safetensors"]["sha256"] == pin["files"]["model.safetensors"]
    assert needed["requirements.lock"]["sha256"] == sha256
    assert details["metadata"]["invocationId"] == version.run_id and details["metadata"]["startedOn"].endswith("Z")


def test_a_version_whose_run_is_purged_says_what_is_missing(promoted, workspace):
    client, record = promoted
    run_id = client.get_model_version_by_alias("biasline-small", "champion").run_id
    purge(workspace, run_id)
    shutil.rmtree(record.folder)
    lines = dossier(client, "small", "champion", workspace / "out", pdf=True)
    assert f"missing: its run {run_id}, which was purged from the store" in lines
    assert "missing: evaluation/card.md" in lines and "missing: evaluation/metrics.json" in lines
    page = (workspace / "out/dossier.md").read_text(encoding="utf-8")
    assert "The card could not be had." in page and "- evaluation/card.md" in page
    assert "| latency | warning |" in page, "the ledger has its decision"
    bom = check_bom(workspace / "out")
    assert "timestamp" not in bom["metadata"]
    assert check_statement(workspace / "out")["predicate"]["runDetails"]["metadata"] == {"invocationId": run_id}


def test_a_candidate_that_nobody_decided_about(registered_small, workspace):
    done = run("small@candidate", workspace / "out")
    assert done.exit_code == 0, done.output
    page = (workspace / "out/dossier.md").read_text(encoding="utf-8")
    for part in ("| let out | by nobody |", "No gate was asked yet.", "Nothing was decided", "nobody has signed it"):
        assert part in page
    assert not (workspace / "out/signature.json").exists()
    assert "is there already" in str(run("small@candidate", workspace / "out").exception)


def test_a_fleet_has_one_too(fleet, workspace, empty_store):
    shutil.copy(empty_store, workspace)
    client = connect()
    register(client, record_of_workspace("fleet"))
    private, public = make_keys(workspace)
    signing.sign(client, "fleet", "candidate", private)
    dossier(client, "fleet", "candidate", workspace / "out", pdf=True, public=public)
    check_bom(workspace / "out")
    names = {one["name"] for one in check_statement(workspace / "out")["subject"]}
    assert "artifacts/tenants.zip" in names
    assert "It holds: signed" in (workspace / "out/dossier.md").read_text(encoding="utf-8")
    [packed] = workspace.glob("mlartifacts/**/models/*/artifacts/artifacts/tenants.zip")
    content = bytearray(packed.read_bytes())
    content[100] ^= 1
    packed.write_bytes(content)
    version = client.get_model_version_by_alias("biasline-fleet", "candidate")
    assert "artifacts/tenants.zip has changed" in signing.standing(client, version, public).told


@pytest.mark.parametrize("library", ["markdown_it", "cyclonedx.model.bom", "in_toto_attestation.v1.statement", "fpdf"])
def test_without_a_library_the_way_out_is_told_and_nothing_left(promoted, workspace, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BiaslineError, match=r"pip install 'biasline\[audit\]'"):
        dossier(promoted[0], "small", "champion", workspace / "out", pdf=True)
    assert not (workspace / "out").exists()


def test_slices_below_the_whole_are_limits(promoted, workspace):
    client, record = promoted
    path = record.file(TaskPlace("small").slices)
    rows = pl.read_csv(path)
    low = rows["value"].to_list().index("home")
    ends = [0.2 if at == low else value for at, value in enumerate(rows["tuned_high"])]
    rows.with_columns(pl.Series("tuned_high", ends)).write_csv(path)
    dossier(client, "small", "champion", workspace / "out")
    assert "- Slice skill = home: exact match 0.500 [0.095, 0.200] over 2 rows, of all rows 0.667." in (
        workspace / "out/dossier.md"
    ).read_text(encoding="utf-8")


def test_a_part_of_a_page_has_lower_headings_and_leaves_code_alone():
    text = "# Title\n\n## Part\n\n```python\n# comment\n```\n\n###### deep"
    assert lowered(text, 1) == "### Part\n\n```python\n# comment\n```\n\n###### deep"


def test_html_shows_what_it_is_given_and_loads_nothing():
    page = as_html("a <b>", "<img src=x onerror=y> [l](javascript:alert(1)) ![p](p.png) ![q](http://q)", {"p.png": PNG})
    assert "<img src=x" not in page and 'href="javascript' not in page and "<title>a &lt;b&gt;</title>" in page
    assert page.count("data:image/png") == 1 and "http://q" not in page
