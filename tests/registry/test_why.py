"""The auditor's page: each question answered by the files themselves."""

import hashlib
import json
import shutil

import pytest

from biasline.errors import BiaslineError
from biasline.params import Task
from biasline.registry.promote import promote, rollback
from biasline.registry.sync import register
from biasline.registry.why import as_markdown, why
from biasline.tracking.record import Record, record_of_workspace
from tests.conftest import LENIENT_GATES

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)
STRICT = Task(base="b", data="d", gates={"floor": 1.0})


@pytest.fixture
def registered(registered_small):
    return registered_small


def test_the_page_goes_from_the_raw_file_to_who_let_it_out(registered, workspace, trained):
    client, record = registered
    promote(client, "small", STRICT, "bob", "too early")
    promote(client, "small", LENIENT, "ann", "first release")
    told = why(client, "small")
    place = trained[1]
    assert told["data"]["sha256"] == hashlib.sha256((workspace / "rows.jsonl").read_bytes()).hexdigest()
    assert told["data"]["here"] == "the same"
    quality = json.loads(place.quality.read_text())
    assert (told["data"]["rows"], told["data"]["reasons"]) == (quality["rows"], quality["reasons"])
    assert told["model"]["aliases"] == ["candidate", "champion"]
    assert told["model"]["delta_sha256"] == hashlib.sha256(place.delta.read_bytes()).hexdigest()
    assert told["base"]["name"] == "tiny-bloom" and told["base"]["source"]["kind"] == "folder"
    assert told["evaluation"]["tuned"] == json.loads(place.metrics.read_text())["tuned"]
    assert [(entry["decision"], entry["by"]) for entry in told["decisions"]] == [
        ("refused", "bob"),
        ("promoted", "ann"),
    ]
    page = as_markdown(told)
    for part in (
        told["data"]["sha256"],
        record.fingerprint,
        "tiny-bloom",
        "refused by bob: too early",
        "FAILED",
        "floor",
    ):
        assert part in page
    json.dumps(told)


def test_a_rollback_stands_on_both_pages(registered):
    client, record = registered
    promote(client, "small", LENIENT, "ann", "")
    other = Record(record.task, "b" * 16)
    shutil.copytree(record.folder, other.folder)
    for path in other.files.rglob("*.json"):
        path.write_text(path.read_text().replace(record.fingerprint, other.fingerprint))
    register(client, other)
    promote(client, "small", LENIENT, "ann", "")
    rollback(client, "small", "bob", "it swears")
    for fingerprint, word in ((record.fingerprint, "rolled back to"), (other.fingerprint, "taken back")):
        told = why(client, "small", fingerprint)
        assert [entry["decision"] for entry in told["decisions"]] == ["promoted", word]
        assert f"{word} by bob: it swears" in as_markdown(told)


def test_another_machine_that_has_the_store_alone_says_the_same(registered):
    client, record = registered
    before = why(client, "small", record.fingerprint[:6])
    shutil.rmtree(record.folder)
    assert why(client, "small", record.fingerprint[:6]) == before


def test_data_that_changed_or_went_is_told(registered, workspace):
    client, _ = registered
    (workspace / "rows.jsonl").write_text("{}\n")
    assert why(client, "small", "candidate")["data"]["here"] == "another by now"
    (workspace / "rows.jsonl").unlink()
    assert why(client, "small", "candidate")["data"]["here"] == "not here"


def test_a_delta_that_was_tampered_with_is_told(registered, workspace):
    client, _ = registered
    [path] = (workspace / "mlartifacts").rglob("artifacts/delta.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told = why(client, "small", "candidate")
    assert told["model"]["delta_is_intact"] is False
    assert "NOT what was registered" in as_markdown(told)


def test_a_model_that_there_is_not_is_refused(registered):
    client, _ = registered
    with pytest.raises(BiaslineError, match="biasline-small: no champion"):
        why(client, "small")


def test_numbers_that_are_not_those_it_was_judged_by_are_told(registered, trained):
    client, _ = registered
    promote(client, "small", LENIENT, "ann", "")
    assert why(client, "small")["evaluation"]["is_what_was_judged"]
    place = trained[1]
    metrics = json.loads(place.metrics.read_text())
    metrics["tuned"]["exact_match"] = 0.123
    place.metrics.write_text(json.dumps(metrics))
    record_of_workspace("small")
    told = why(client, "small")
    assert not told["evaluation"]["is_what_was_judged"]
    assert "evaluated again since" in as_markdown(told)
