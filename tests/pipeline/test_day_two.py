"""After the first champion: what people correct becomes the next candidate's rows, and rows can be taken out again."""

import json
import os
import zipfile
from datetime import UTC, datetime

import polars as pl
import pytest
from ruamel.yaml import YAML

from biasline.serving.traffic import SCHEMA

LENIENT = "gates: {floor: 0, better_than_base: false, margin: 1, max_latency: 99, slice_drop: 1}"


def serve_traffic(project, texts):
    """What a server of the sentiment task would have kept of some requests."""
    rows = [
        {
            "at": datetime.now(UTC),
            "request": f"r{number}",
            "task": "sentiment",
            "tenant": "",
            "version": "1",
            "fingerprint": "f" * 16,
            "asked": json.dumps({"text": text}),
            "answer": json.dumps({"label": "negative", "probability": 0.6}),
        }
        for number, text in enumerate(texts)
    ]
    (project.folder / "traffic").mkdir()
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(project.folder / "traffic/one.parquet")


@pytest.fixture
def promoted(project):
    """A project whose sentiment task has a champion, in few steps."""
    project.edit("params.yaml", "epochs: 3\n      min_steps: 200", "epochs: 0.1\n      min_steps: 20")
    project.edit("params.yaml", "gates:\n      floor: 0.8", LENIENT)
    project.commit()
    project.run("dvc repro register@sentiment && biasline promote sentiment --by ann --reason first")
    return project


# Stands in for GitHub's own command, which would open the pull request.
GH = '#!/bin/sh\n[ "$1 $2 $3" = "pr create --head" ] && cp "$8" ../posted.md\n'


@pytest.mark.slow
def test_the_nightly_job_makes_a_pull_request_of_corrections_and_what_they_brought_is_told(promoted, root):
    project = promoted
    serve_traffic(project, [f"What a marvellous day number {number}." for number in range(40)])
    (project.folder / "traffic/feedback").mkdir()
    said = {"at": "2026-03-08", "task": "sentiment", "tenant": "", "index": 0, "right": "positive", "thumb": None}
    lines = [json.dumps({**said, "request": f"r{number}"}) for number in range(40)]
    (project.folder / "traffic/feedback/one.jsonl").write_text("\n".join(lines) + "\n")
    (project.folder / ".git/info/exclude").write_text("traffic\nharvest.txt\nreport.md\n")
    project.run("git checkout --quiet -B main && git init --quiet --bare ../remote.git")
    project.run("git remote set-url origin ../remote.git && git add -A && git commit -qm promoted")
    project.run("git push --quiet --set-upstream origin main && git remote set-head origin main")
    tools = project.folder.parent / "tools"
    tools.mkdir()
    (tools / "gh").write_text(GH)
    (tools / "gh").chmod(0o755)
    before = pl.read_parquet(project.folder / "data/sentiment/clean/test.parquet")["text"].to_list()
    steps = YAML(typ="safe").load(root / "examples/ci/watch.yml")["jobs"]["watch"]["steps"]
    (project.folder.parent / "step.sh").write_text(steps[-1]["run"])
    path = f'export PATH="{tools}{os.pathsep}$PATH"'
    project.run(f"{path} && bash -e ../step.sh", TASKS="sentiment", TRAFFIC="traffic")
    posted = (project.folder.parent / "posted.md").read_text()
    assert "biasline-sentiment version 1: " in posted and "changed" in posted
    assert "data/sentiment/raw/harvested-001.jsonl" in posted and "data/sentiment/raw.tsv moved to" in posted
    assert "harvest-sentiment" in project.run("git --git-dir ../remote.git branch").stdout
    lines = (project.folder / "data/sentiment/raw/harvested-001.jsonl").read_text().splitlines()
    assert 20 < len(lines) <= 40
    early = project.run("biasline harvest sentiment --effect", check=False)
    assert early.returncode == 1 and "no model of these parameters → dvc repro register@sentiment" in early.stderr
    project.run("dvc repro register@sentiment")
    after = pl.read_parquet(project.folder / "data/sentiment/clean/test.parquet")
    assert sorted(after["text"]) == sorted(before) and after["harvested"].is_null().all()
    told = json.loads(project.run("biasline harvest sentiment --effect --json").stdout)
    trained = pl.read_parquet(project.folder / "data/sentiment/clean/train.parquet")["harvested"].is_not_null().sum()
    assert told["rows"] == trained > 10 and told["test_rows"] == len(before)
    assert told["fingerprint"] != told["without"] and told["gain"]["low"] <= told["gain"]["value"]
    assert told["over_champion"] is not None
    page = (project.folder / ".biasline/harvest/sentiment/effect.md").read_text()
    assert "with them over the champion" in page and "share of the improvement" in page
    again = project.run("biasline harvest sentiment --effect")  # both are there already
    assert "Running stage" not in again.stderr


# Backwards: this file lies in the clone that is searched.
WORD = "elbatakimsnu"[::-1]
SECRET = f"zxqv {WORD} plum"


def texts_in(folder):
    """Names of files below a folder that have the secret, packed tables and zip archives too."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or ".git" in path.parts:
            continue
        content = path.read_bytes()
        if content.startswith(b"PAR1"):
            content = repr(pl.read_parquet(path).to_dicts()).encode()
        elif content.startswith(b"PK"):
            with zipfile.ZipFile(path) as packed:
                content = b"".join(packed.read(name) for name in packed.namelist())
        if WORD.encode() in content:
            found.append(str(path.relative_to(folder)))
    return found


# Kills the process whenever a step was noted, until there is no further one.
KILLED = """
import os, signal, sys
from biasline.erasing.erase import _Journal
note = _Journal.note
def noted(self, **values):
    note(self, **values)
    if "done" in values and values["done"]:
        os.kill(os.getpid(), signal.SIGKILL)
_Journal.note = noted
from biasline.cli import main
sys.argv = ["biasline", *{arguments!r}]
main()
"""


@pytest.mark.slow
def test_an_erased_row_is_nowhere_and_comes_back_nowhere(project):
    project.edit("params.yaml", "epochs: 3\n      min_steps: 200", "epochs: 0.1\n      min_steps: 20")
    project.edit("params.yaml", "gates:\n      floor: 0.8", LENIENT)
    raw = project.folder / "data/sentiment/raw.tsv"
    whole = raw.read_bytes()
    planted = "".join(f"{SECRET} {name} film.\tpositive\ten\n" for name in ("one", "two", "three", "four", "five"))
    planted += f"{SECRET} \ufffd broken.\tpositive\ten\n"
    raw.write_bytes(whole + planted.encode())
    project.commit("planted")
    project.run("dvc repro register@sentiment && biasline promote sentiment --by ann --reason first")
    project.run("dvc push -q -d register@sentiment")
    remote = project.folder / ".biasline/dvc-remote"
    serve_traffic(project, [f"{SECRET.upper()}   one film.", "A plain one."])
    assert texts_in(project.folder) and texts_in(remote)
    (project.folder / "gone.csv").write_text(
        "text\n" + "".join(line.split("\t")[0] + "\n" for line in planted.splitlines())
    )

    options = ["sentiment", "--rows", "gone.csv", "--traffic", "traffic"]
    before = project.run("git status --porcelain").stdout
    told = json.loads(project.run(f"biasline erase {' '.join(options)} --dry-run --json").stdout)
    assert project.run("git status --porcelain").stdout == before
    assert (
        told["rows"] == 6
        and list(told["trainings"].values()) == ["trained on"]
        and list(told["served"].values()) == [1]
    )
    assert set(told["aliases"]) == {"champion", "candidate"} and told["cache"]["objects"] > 3
    assert any("git's history" in one for one in told["unreached"])

    arguments = ["erase", *options, "--by", "ann", "--reason", "asked to"]
    kills = 0
    while (done := project.run(f"python - <<'E'\n{KILLED.format(arguments=arguments)}\nE", check=False)).returncode:
        kills += 1
        assert done.returncode in (-9, 137) and kills < 9, done.stderr
    assert kills == 5
    (project.folder / "gone.csv").unlink()
    assert texts_in(project.folder) == [] and texts_in(remote) == []
    assert raw.read_bytes() == whole
    assert "up to date" in project.run("dvc status -d register@sentiment").stdout
    assert "WRONG" not in project.run("biasline verify sentiment").stdout
    history = project.run("biasline history sentiment --json").stdout
    entries = json.loads(history)
    assert [one["decision"] for one in entries] == ["promoted", "promoted", "erased"] and WORD not in history
    assert entries[2]["gone"] == [entries[0]["fingerprint"]] and entries[2]["rows"] == 6
    project.run("biasline sync sentiment && biasline verify sentiment")
    assert "up to date" in project.run("dvc repro register@sentiment").stdout

    raw.write_bytes(whole + planted.encode())  # inputs that DVC knew
    assert "6 rows were erased and have come back" in project.run("dvc repro validate@sentiment").stdout
    raw.write_bytes(whole + planted.replace("film", "FILM").encode())
    said = project.run("dvc repro validate@sentiment").stdout
    assert "6 rows were erased and have come back: left out" in said
    assert all(
        WORD not in str(pl.read_parquet(path).to_dicts()).lower()
        for path in (project.folder / "data/sentiment/clean").glob("*.parquet")
    )
