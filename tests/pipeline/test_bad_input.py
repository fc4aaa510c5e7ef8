"""Bad input through `dvc repro`: one line that says what is wrong and the way out; nothing half-written."""

import json

import pytest


@pytest.fixture
def small(project):
    """A task `small` beside the demo's, on 200 of its rows."""
    rows = (project.folder / "data/instruct/raw.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    (project.folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    put(project, {})
    return project


def put(project, more, base="data/bases/tiny-bloom.json", data="rows.jsonl"):
    small = {"base": base, "data": data, "train": {"min_steps": 2, "epochs": 0.1}, "evaluate": {"max_new_tokens": 2}}
    (project.folder / "params.yaml").write_text(json.dumps({"tasks": {"small": small | more}}))


def refused(project, command="dvc repro"):
    done = project.run(command, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert " → " in lines[0] or "did you mean" in lines[0]
    left = (
        [path.name for path in (project.folder / "data/small").rglob(".*")]
        if (project.folder / "data/small").exists()
        else []
    )
    assert [name for name in left if name != ".gitignore"] == []
    return lines[0]


def test_a_missing_data_file(small):
    put(small, {}, data="none.jsonl")
    assert "tasks.small.data: none.jsonl: no such file" in refused(small)
    assert "none.jsonl: no such file" in refused(small, "biasline task check")


@pytest.mark.slow
def test_broken_json_names_the_line(small):
    with (small.folder / "rows.jsonl").open("a") as file:
        file.write('{"instruction": "x", "outp\n')
    assert "rows.jsonl: broken JSON at line 201" in refused(small)
    assert not (small.folder / "data/small/clean").exists()


def test_an_unknown_key(small):
    put(small, {"trian": {}})
    assert "tasks.small.trian: unknown key" in refused(small)


@pytest.mark.slow
def test_a_column_that_is_absent(small):
    put(small, {"source": {"columns": {"output": "answer"}}})
    assert "no column 'answer' (source.columns.output)" in refused(small)


@pytest.mark.slow
def test_a_base_that_is_not_there(small):
    put(small, {}, base="data/bases/none.json")
    assert "data/bases/none.json: no such pin → write it: `biasline pin" in refused(small)


@pytest.mark.slow
def test_a_base_that_has_changed(small):
    with (small.folder / "data/bases/tiny-bloom/model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "model.safetensors has changed since it was pinned" in refused(small)
    assert "model.safetensors has changed since it was pinned" in refused(small, "biasline task check")


@pytest.mark.slow
def test_a_row_without_output_goes_to_quarantine_and_the_run_goes_on(small):
    rows = small.folder / "rows.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8") + json.dumps({"instruction": "x"}) + "\n", encoding="utf-8")
    small.run("dvc repro")
    assert "| 201 | empty_output | x |" in (small.folder / "data/small/quality.md").read_text(encoding="utf-8")
