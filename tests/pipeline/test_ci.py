"""The job in examples/ci: the commands of its steps, run as they stand there, on a clone with a remote of its own."""

import json
import os

import pytest
from ruamel.yaml import YAML

from tests.pipeline.test_repro import quick

# Stands in for GitHub's own command, which would post the report.
GH = '#!/bin/sh\n[ "$1 $2 $4" = "pr comment --body-file" ] && cp "$5" posted.md\n'


@pytest.fixture
def job(root):
    return YAML(typ="safe").load(root / "examples" / "ci" / "models.yml")["jobs"]


def commands(job, name):
    """The scripts of a job's steps, without the environment, which is there, and what is GitHub's."""
    return [step["run"] for step in job[name]["steps"] if "run" in step and step["run"] != "make setup"]


@pytest.mark.slow
def test_the_job_judges_a_pull_request_and_promotes_on_the_main_branch(project, job):
    quick(project)
    gates = "    gates: {floor: 0.9, margin: 1, max_latency: 99}\n"
    project.edit("params.yaml", "max_new_tokens: 2\n", f"max_new_tokens: 2\n{gates}")
    project.commit()
    # The clone may be on main, on another branch or on none, as the repository that it was cloned from.
    project.run("git checkout --quiet -B main && git init --quiet --bare ../remote.git")
    project.run("git remote set-url origin ../remote.git && git push --quiet --set-upstream origin main")
    tools = project.folder.parent / "tools"
    tools.mkdir()
    (tools / "gh").write_text(GH)
    (tools / "gh").chmod(0o755)
    told = {"BY": "ann", "PULL_REQUEST": "7", "SUBJECT": "Better answers (#7)"}

    def run(name):
        script = "set -e\n" + "\n".join(f"(\n{one}\n) || exit $?" for one in commands(job, name))
        (project.folder.parent / "steps.sh").write_text(script)
        path = f'export PATH="{tools}{os.pathsep}$PATH"'
        return project.run(f"{path} && bash ../steps.sh", check=False, **told)

    # Two tokens an answer and five steps: half of the answers are right.
    project.run("git checkout --quiet -b change")
    judged = run("judge")
    assert judged.returncode == 1
    posted = (project.folder / "posted.md").read_text()
    assert "## Metrics against main" in posted and "## instruct" in posted
    assert "would be refused**" in posted and "| gate on exact_match | | numbers |" in posted
    assert not list(project.folder.glob("data/*/promotions.jsonl"))
    aliases = "from mlflow import MlflowClient as C\nprint(C().get_registered_model('biasline-instruct').aliases)"
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project.folder / 'mlflow.db'}"}
    assert project.python(aliases, **store).strip() == "{}"

    project.edit("params.yaml", "floor: 0.9", "floor: 0.2")
    project.commit()
    project.run("git checkout --quiet main && git merge --quiet change")
    assert run("promote").returncode == 0
    pushed = project.run("git --git-dir ../remote.git show main:data/instruct/promotions.jsonl").stdout
    [entry] = map(json.loads, pushed.splitlines())
    assert (entry["decision"], entry["by"], entry["reason"]) == ("promoted", "ann", "Better answers (#7)")
    assert "champion" in project.python(aliases, **store)
    assert "champion already" in run("promote").stdout
    assert project.run("git status --porcelain").stdout in ("", "?? posted.md\n?? report.md\n")
