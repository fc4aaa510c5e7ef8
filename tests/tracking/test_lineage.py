import json
import os
import shutil
import subprocess

import pytest

from biasline.params import read_params
from biasline.tracking import git as git_room
from biasline.tracking.git import GitRefused, changed, commit
from biasline.tracking.lineage import lineage, made_again, uncommitted_now, uncommitted_when_made


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


def test_files_that_are_gone_are_changed_and_names_are_as_written(committed):
    (committed / "requirements.lock").write_text("x\n")
    (committed / "src").mkdir()
    (committed / "src/änderung mit Raum.py").write_text("")
    git("add", ".")
    git("commit", "-qm", "more")
    git("config", "status.showUntrackedFiles", "no")
    assert uncommitted_now(committed) == []
    (committed / "requirements.lock").unlink()
    (committed / "src/änderung.py").write_text("")
    assert uncommitted_now(committed) == ["requirements.lock", "src/änderung.py"]


def test_a_command_in_a_sub_folder_sees_the_projects_changes(committed, monkeypatch):
    (committed / "dvc.yaml").write_text("stages: {} # changed\n")
    (committed / "docs").mkdir()
    monkeypatch.chdir(committed / "docs")
    assert uncommitted_now(committed) == ["dvc.yaml"]


def other_owner(folder, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return "fatal: detected dubious ownership in repository at "


def bad_head(folder, monkeypatch):
    (folder / ".git/refs/heads").joinpath((folder / ".git/HEAD").read_text().strip().rpartition("/")[2]).write_text(
        "1" * 40 + "\n"
    )
    return "fatal: bad object HEAD"


def no_head(folder, monkeypatch):
    (folder / ".git/HEAD").unlink()
    return "fatal: not a git repository"


def no_objects(folder, monkeypatch):
    shutil.rmtree(folder / ".git/objects")
    return "fatal: "


def no_git(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    return "git cannot be run: No such file or directory"


def silent_git(folder, monkeypatch):
    """One that hangs, as on a network's file system that went away."""
    (folder / "bin").mkdir()
    (folder / "bin/git").write_text("#!/bin/sh\nexec sleep 60\n")
    (folder / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(git_room, "_TIMEOUT_S", 0.2)
    return "gave no answer within"


@pytest.mark.parametrize("fault", [other_owner, bad_head, no_head, no_objects, no_git, silent_git])
def test_a_git_that_does_not_answer_is_never_nothing_changed(committed, monkeypatch, fault):
    task = small(committed)
    word = fault(committed, monkeypatch)
    with pytest.raises(GitRefused, match=word):
        changed("params.yaml")
    [told] = uncommitted_now(committed)
    assert told.startswith("not known, since git says: ") and word in told
    tags = lineage("rows.jsonl") | made_again("small", task)
    assert "git.dirty" not in tags and "made.by" not in tags
    assert word in uncommitted_when_made(tags)


def test_no_repository_is_told_as_such(workspace):
    assert commit() is None and changed("params.yaml") == []
    assert uncommitted_now(workspace) == [uncommitted_when_made(lineage())] == ["all of it, in no git repository"]


def test_what_was_in_no_commit_is_read_from_a_runs_tags():
    assert uncommitted_when_made({"git.commit": "1", "git.dirty": "false"}) == ""
    assert uncommitted_when_made({"git.commit": "1", "git.dirty": "true"}) == "params.yaml"
    assert uncommitted_when_made({"git.commit": "1", "git.dirty": "true", "git.changed": "src/a.py"}) == "src/a.py"
