"""`dvc repro` after a change of code: what computes nothing else is not computed again."""

import pytest

from tests.pipeline.test_repro import quick, read

MODEL, EVALUATION = "data/instruct/model/delta.safetensors", "data/instruct/evaluation/metrics.json"
COPIED = "done before, from the same inputs by the same code"


def outs(project):
    """The outs of training and evaluation, and the hashes that DVC has of them."""
    folder = project.folder / "data" / "instruct"
    files = [path for name in ("model", "evaluation") for path in (folder / name).rglob("*") if path.is_file()]
    stages = project.run("dvc repro --dry --force register@instruct").stdout
    assert "train@instruct" in stages
    return {path: path.read_bytes() for path in [*files, folder / "history.csv"]}


@pytest.mark.slow
def test_prose_computes_nothing_and_a_constant_does(project):
    quick(project)
    project.run("dvc repro register@instruct")
    before, fingerprint = outs(project), read(project, EVALUATION)["fingerprint"]

    project.edit("src/biasline/training/loop.py", '"""The training loop', '"""A training loop')
    project.edit("src/biasline/training/loop.py", "# What dropout draws", "# All that dropout draws")
    project.edit("src/biasline/evaluation/card.py", '"""The model card: ', '"""Of a model, the card: ')
    said = project.run("dvc repro register@instruct").stdout
    assert said.count(COPIED) == 2 and "trainable:" not in said
    assert outs(project) == before
    assert project.run("dvc status").stdout.strip() == "Data and pipelines are up to date."

    project.edit("src/biasline/training/loop.py", "weight_decay=0.0", "weight_decay=0.1")
    said = project.run("dvc repro register@instruct").stdout
    assert COPIED not in said and said.count("trainable:") == 1
    assert read(project, EVALUATION)["fingerprint"] != fingerprint
    assert (project.folder / MODEL).read_bytes() != before[project.folder / MODEL]

    # Back again: both are known.
    project.edit("src/biasline/training/loop.py", "weight_decay=0.1", "weight_decay=0.0")
    said = project.run("dvc repro --no-run-cache register@instruct").stdout
    assert COPIED in said and "trainable:" not in said
    assert read(project, EVALUATION)["fingerprint"] == fingerprint
    assert (project.folder / MODEL).read_bytes() == before[project.folder / MODEL]
