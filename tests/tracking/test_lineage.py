import json
import subprocess

import pytest

from biasline.params import read_params
from biasline.tracking.lineage import changed, lineage, made_again


def git(*arguments):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", *arguments], check=True)


@pytest.fixture
def committed(workspace):
    (workspace / ".gitignore").write_text(".biasline\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    return workspace


def small(workspace, **train):
    raw = json.loads((workspace / "params.yaml").read_text())
    raw["tasks"]["small"]["train"] |= train
    (workspace / "params.yaml").write_text(json.dumps(raw))
    return read_params(workspace / "params.yaml").tasks["small"]


def test_a_committed_run_is_made_again_by_the_pipeline(committed):
    tags = made_again("small", small(committed))
    assert tags["made.by"].startswith("git checkout ") and tags["made.by"].endswith(" && dvc repro register@small")
    assert "git.changed" not in tags
    assert lineage("rows.jsonl")["git.dirty"] == "false"


def test_what_differs_from_the_commit_is_set_on_the_command_line(committed):
    tags = made_again("small", small(committed, learning_rate=0.5, method="lora", lora={"layers": "query+value"}))
    settings = [word.strip("'") for word in tags["made.by"].split() if "++" in word]
    assert settings == [
        '++tasks.small.train.method="lora"',
        '++tasks.small.train.lora.layers="query+value"',
        "++tasks.small.train.learning_rate=0.5",
    ]
    assert "dvc exp run -S" in tags["made.by"]
    assert lineage("rows.jsonl")["git.dirty"] == "true"  # params.yaml itself


def test_other_changes_are_named(committed):
    (committed / "dvc.yaml").write_text("stages: {} # changed\n")
    assert made_again("small", small(committed))["git.changed"] == "dvc.yaml"
    (committed / "rows.jsonl").write_text("{}\n")
    assert changed("dvc.yaml", "params.yaml") == ["dvc.yaml"]
    assert made_again("small", small(committed))["git.changed"] == "dvc.yaml, rows.jsonl"


def test_what_a_command_line_cannot_say_is_told_as_a_change(committed):
    tags = made_again("small", small(committed, pattern="layer\\.\\d+"))
    assert "made.by" not in tags and tags["git.changed"] == "params.yaml"


def test_a_template_that_went_stops_nothing(committed):
    (committed / "custom").mkdir()
    (committed / "custom/a.jinja").write_text("{{ messages }}")
    raw = json.loads((committed / "params.yaml").read_text())
    raw["tasks"]["small"]["tokens"] = {"template": "custom/a.jinja"}
    (committed / "params.yaml").write_text(json.dumps(raw))
    git("add", ".")
    git("commit", "-qm", "template")
    (committed / "custom/a.jinja").rename(committed / "custom/b.jinja")
    raw["tasks"]["small"]["tokens"] = {"template": "custom/b.jinja"}
    (committed / "params.yaml").write_text(json.dumps(raw))
    tags = made_again("small", small(committed))
    assert (
        '++tasks.small.tokens.template="custom/b.jinja"' in tags["made.by"] and "custom/b.jinja" in tags["git.changed"]
    )


def test_a_task_that_is_in_no_commit_has_no_command(committed):
    assert "made.by" not in made_again("other", small(committed))


def test_without_a_repository_there_is_none(workspace):
    assert made_again("small", small(workspace)) == {}
    tags = lineage("rows.jsonl")
    assert "git.commit" not in tags and tags["cpu.model"] and tags["version.peft"]
