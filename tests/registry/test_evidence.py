"""Candidate and champion are held against each other on one test set, whichever they were evaluated on."""

import json
import shutil

import pytest

from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task, read_params
from biasline.registry import ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION
from biasline.registry.evidence import shown_by
from biasline.registry.promote import promote
from biasline.registry.sync import register
from biasline.serving.registered import aliased
from biasline.tracking.record import record_of_workspace
from tests.conftest import LENIENT_GATES, ROOT, run_stages
from tests.registry.test_registry import another


def gates(**more):
    return Task(base="b", data="d", gates=LENIENT_GATES | more)


@pytest.fixture
def champion(registered_small):
    """The client, and the record of the first champion."""
    client, record = registered_small
    assert promote(client, "small", gates(), "ann", "").promoted
    return client, record


def gate(decision, name):
    [found] = [one for one in decision.verdict.gates if one.name == name]
    return found


def test_the_champion_is_asked_the_candidates_test_rows(champion, workspace):
    client, _ = champion
    lines = (ROOT / "data" / "instruct" / "raw.jsonl").read_text(encoding="utf-8").splitlines()
    (workspace / "rows.jsonl").write_text("\n".join(lines[150:400]) + "\n", encoding="utf-8")
    task = read_params(workspace / "params.yaml").tasks["small"]
    run_stages(task, TaskPlace("small"))
    register(client, record_of_workspace("small"))
    decision = promote(client, "small", gates(), "ann", "")
    rows = json.loads(TaskPlace("small").metrics.read_text())["rows"]
    told = gate(decision, "not worse than the champion")
    assert "than version 1 (" in told.told and "), asked the candidate's test rows: difference" in told.told
    assert told.numbers["rows"] == rows
    shown = shown_by(client, aliased(client, "small", CANDIDATE))
    assert {"model.bytes"} <= set(shown.costs) and shown.quality["rows"] == 250


@pytest.mark.slow
def test_a_champion_whose_run_was_evaluated_again_is_asked_anew(champion, workspace, trained):
    """The same delta with other generation settings is another version of the same run."""
    from biasline.evaluation.evaluate import evaluate
    from biasline.layout import write_text

    client, record = champion
    task, place = trained
    longer = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"max_new_tokens": 9})})
    write_text(place.resolved, longer.model_dump_json())
    evaluate(longer, place)
    register(client, record_of_workspace("small"))
    decision = promote(client, "small", gates(), "ann", "longer answers")
    assert decision.promoted and decision.version != "1"
    assert "version 1 (" in gate(decision, "not worse than the champion").told
    assert "asked the candidate's test rows" in gate(decision, "not worse than the champion").told


def test_a_lost_champion_is_no_free_pass(champion, workspace):
    client, record = champion
    register(client, another(record, "b" * 16))
    client.delete_model_version("biasline-small", "1")
    for dry_run in (True, False):
        with pytest.raises(BiaslineError, match="has no version in the registry to compare with.*--champion-is-lost"):
            promote(client, "small", gates(), "ann", "", dry_run=dry_run)
    assert promote(client, "small", gates(), "ann", "", champion_is_lost=True).promoted


def answers(record, right):
    """A further run whose answers are right in the first so many test rows."""
    import polars as pl

    place = TaskPlace("small")
    frame = pl.read_parquet(record.file(place.predictions)).with_row_index("at")
    frame = frame.with_columns(tuned_exact=pl.col("at") < right).drop("at")
    frame.write_parquet(record.file(place.predictions))
    metrics = json.loads(record.file(place.metrics).read_text())
    metrics["tuned"]["exact_match"] = right / frame.height
    record.file(place.metrics).write_text(json.dumps(metrics))
    return record


@pytest.mark.slow
def test_a_candidate_is_held_against_the_best_champion_so_far(champion):
    client, record = champion
    rows = 15
    for letter, right in (("b", rows), ("c", rows - 3)):
        register(client, answers(another(record, letter * 16), right))
        assert promote(client, "small", gates(), "ann", "").promoted
    register(client, answers(another(record, "d" * 16), rows - 5))
    decision = promote(client, "small", gates(margin=0.45), "ann", "")
    assert gate(decision, "not worse than the champion").passed
    best = gate(decision, "not worse than the best champion so far")
    assert not best.passed and "worse than version 2 (bbbbbbbb)" in best.told
    assert not decision.promoted and aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == "c" * 16
    entry = list(ledger.entries(TaskPlace("small").ledger))[-1]
    assert entry["verdict"]["standing"] == "not worse" and entry["value"] == pytest.approx((rows - 5) / rows)
    assert {one["name"]: one["numbers"] for one in entry["verdict"]["gates"]}["floor"] == {
        "value": entry["value"],
        "floor": 0.0,
    }


def test_the_projects_own_gate_decides_too(champion, workspace):
    client, record = champion
    (workspace / "custom").mkdir()
    (workspace / "custom/gates.py").write_text(
        'def keeps_its_rows(candidate, champion):\n    """as many rows"""\n'
        '    return candidate["predictions"].height > champion["predictions"].height\n'
    )
    register(client, another(record, "e" * 16))
    decision = promote(client, "small", gates(own="custom/gates.py"), "ann", "")
    assert not decision.promoted and not gate(decision, "keeps_its_rows").passed
    with pytest.raises(BiaslineError, match=r"custom/none\.py: no such file \(gates\.own\)"):
        promote(client, "small", gates(own="custom/none.py"), "ann", "")


def test_a_run_that_lost_its_evaluation_is_told(champion, workspace):
    client, record = champion
    register(client, another(record, "f" * 16))
    version = aliased(client, "small", CANDIDATE)
    shutil.rmtree(workspace / ".biasline" / "records" / "small" / ("f" * 16))
    for path in (workspace / "mlartifacts").rglob("predictions.parquet"):
        if version.run_id in str(path):
            path.unlink()
    with pytest.raises(BiaslineError, match=r"its run has no evaluation/predictions\.parquet → `biasline sync small`"):
        promote(client, "small", gates(), "ann", "")
