"""Whole runs in a temporary clone of this repository."""

import json
import re

import pytest

from tests.conftest import clone


def read(project, path):
    return json.loads((project.folder / path).read_text(encoding="utf-8"))


def quick(project):
    """Leave the instruct task alone in params.yaml, and little for it to do."""
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    text = text[: text.index("  # The same frozen base")]
    for old, new in (("min_steps: 400", "min_steps: 5"), ("epochs: 3", "epochs: 0.05")):
        assert old in text
        text = text.replace(old, new)
    (project.folder / "params.yaml").write_text(text + "      max_new_tokens: 2\n", encoding="utf-8")
    project.commit("quick")


def runs(project):
    """Fingerprint → (MLflow run, registered version, aliases) of the clone's store."""
    return json.loads(project.python(RUNS).splitlines()[-1])


RUNS = """
import json
from biasline.tracking.store import connect
client = connect()
experiment = client.get_experiment_by_name("instruct")
found = client.search_runs([experiment.experiment_id]) if experiment else []
versions = {v.run_id: v for v in client.search_model_versions("name = 'biasline-instruct'")}
model = client.get_registered_model("biasline-instruct") if versions else None
print(json.dumps([{
    "fingerprint": run.data.tags["biasline.fingerprint"],
    "status": run.info.status,
    "experiment": run.data.tags.get("dvc.experiment"),
    "rate": run.data.params["learning_rate"],
    "metrics": run.data.metrics,
    "files": sorted(item.path for item in client.list_artifacts(run.info.run_id)),
    "aliases": [a for a, v in model.aliases.items() if v == versions[run.info.run_id].version] if model else [],
} for run in found]))
"""


ASK = """
import mlflow
print(mlflow.pyfunc.load_model("models:/biasline-instruct@champion").predict([{"instruction": "Add 2 and 3."}]))
"""


@pytest.mark.slow
def test_from_a_clone_to_a_champion_and_back_from_a_wiped_store(project):
    """The mechanics, on a model that has hardly learned: `test_the_main_job` is about what it learns."""
    quick(project)
    gates = "    gates: {floor: 0, better_than_base: false, max_latency: 99}\n"
    project.edit("params.yaml", "max_new_tokens: 2\n", f"max_new_tokens: 2\n{gates}")
    project.run("dvc repro && biasline sync")
    again = project.run("dvc repro").stdout
    assert "Running stage" not in again
    assert "up to date" in again
    report, metrics = (
        read(project, "data/instruct/model/train.json"),
        read(project, "data/instruct/evaluation/metrics.json"),
    )
    delta = project.folder / "data/instruct/model/delta.safetensors"
    assert delta.stat().st_size <= 4 * report["trainable"]["total"] + 16 * 1024
    [run] = runs(project)
    assert run["fingerprint"] == report["fingerprint"]
    assert run["status"] == "FINISHED"
    assert run["aliases"] == ["candidate"]
    assert run["metrics"]["tuned.exact_match"] == metrics["tuned"]["exact_match"]
    assert {"figures", "evaluation", "model", "preview.md", "quality.md"} <= set(run["files"])

    assert "is champion now" in project.run("biasline promote instruct --by tests --reason 'it passed'").stdout
    project.run("rm -r mlflow.db mlartifacts && biasline sync")
    [rebuilt] = runs(project)
    assert sorted(rebuilt.pop("aliases")) == ["candidate", "champion"]
    run.pop("aliases")
    assert rebuilt == run
    store = f"sqlite:///{project.folder}/mlflow.db"
    answer = project.python(ASK, MLFLOW_TRACKING_URI=store, cd="/")
    assert len(json.loads(answer.splitlines()[-1].replace("'", '"'))) == 1


@pytest.mark.slow
def test_the_main_job(project):
    """Fresh clone → registered candidates that have learned their tasks → champion, on the committed lock."""
    project.run("dvc repro && biasline sync")
    metrics = read(project, "data/instruct/evaluation/metrics.json")
    assert metrics["rows"] >= 300
    assert metrics["base"]["exact_match"] <= 0.05
    assert metrics["tuned"]["exact_match"] >= 0.90
    assert read(project, "data/instruct/model/train.json")["trainable"]["share"] < 0.01
    sentiment = read(project, "data/sentiment/evaluation/metrics.json")
    assert sentiment["tuned"]["accuracy"] >= 0.9 > sentiment["base"]["accuracy"]
    assert read(project, "data/sentiment/model/train.json")["trainable"]["head"] == 2 * 160
    quarantined = read(project, "data/instruct/quality.json")
    assert 0.01 < quarantined["quarantine_rate"] < 0.03
    assert len(quarantined["reasons"]) >= 8

    # Nothing but what may differ in last digits on another CPU is changed, and a second run does nothing.
    changed = project.run("git status --porcelain").stdout.split()
    committed = {"dvc.lock", *(f"data/{task}/evaluation/metrics.json" for task in ("instruct", "sentiment"))}
    assert set(changed) - {"M"} <= committed
    assert "up to date" in project.run("dvc repro").stdout

    # How long an answer takes is no matter of this test.
    project.edit("params.yaml", "      slices: [skill]\n", "      slices: [skill]\n    gates: {max_latency: 99}\n")
    assert "is champion now" in project.run("biasline promote instruct --by tests --reason 'it passed'").stdout
    store = f"sqlite:///{project.folder}/mlflow.db"
    answer = project.python(ASK, MLFLOW_TRACKING_URI=store, cd="/")
    assert answer.splitlines()[-1] == "['5']"
    both = project.run("biasline predict --tasks instruct,sentiment --alias candidate --json 'Add 2 and 3.'")
    told = {row["task"]: row for row in json.loads(both.stdout)}
    assert told["instruct"]["output"] == "5"
    assert told["sentiment"]["label"] in ("positive", "negative")
    assert "tiny-bloom: loaded once in" in both.stderr
    assert both.stderr.count("delta put in") == 2


@pytest.mark.slow
def test_two_clones_give_the_same_lock_and_delta(tmp_path):
    locks, deltas = [], []
    for name in ("one", "two"):
        project = clone(tmp_path / name)
        quick(project)
        project.run("dvc repro")
        locks.append((project.folder / "dvc.lock").read_bytes())
        deltas.append((project.folder / "data/instruct/model/delta.safetensors").read_bytes())
    assert locks[0] == locks[1]
    assert deltas[0] == deltas[1]


@pytest.mark.slow
def test_experiments_become_runs_and_move_no_alias(project):
    """In the workspace, in a temporary folder, and queued: all in the one store, each with its files."""
    quick(project)
    project.run("dvc repro")
    project.commit("quick")
    [first] = runs(project)
    rate = "-S tasks.instruct.train.learning_rate"
    project.run(f"dvc exp run {rate}=3e-3")
    project.run("git checkout -q . && dvc checkout -q")
    project.run(f"dvc exp run --temp {rate}=2e-3")
    for value in ("4e-3", "5e-3", "6e-3", "7e-3"):
        project.run(f"dvc exp run --queue {rate}={value}")
    project.run("dvc exp run --run-all")
    found = runs(project)
    assert {float(run["rate"]) for run in found} == {1e-2, 3e-3, 2e-3, 4e-3, 5e-3, 6e-3, 7e-3}
    assert all(run["status"] == "FINISHED" for run in found)
    assert all({"figures", "evaluation", "model"} <= set(run["files"]) for run in found)
    assert {run["fingerprint"]: run["aliases"] for run in found if run["aliases"]} == {
        first["fingerprint"]: ["candidate"]
    }
    assert all(run["experiment"] for run in found if run["fingerprint"] != first["fingerprint"])
    chosen = next(run for run in found if float(run["rate"]) == 5e-3)
    project.run(f"biasline nominate instruct {chosen['experiment']} --by tests")
    assert {run["fingerprint"] for run in runs(project) if "candidate" in run["aliases"]} == {chosen["fingerprint"]}


def test_light_stages_load_no_torch(project):
    project.run("python -m stages.resolve instruct")
    for stage in ("validate", "augment", "tokenize"):
        done = project.run(f"python -X importtime -m stages.{stage} instruct")
        loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
        assert "polars" in loaded, stage
        assert not {name for name in loaded if re.match(r"torch(\.|$)", name)}, stage
