import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from biasline.cli import app, main

BIASLINE = str(Path(sys.executable).with_name("biasline"))

pytestmark = pytest.mark.e2e  # processes, or whole runs of stages


def here(*arguments):
    """In this process, which has loaded by then what takes a new one five seconds."""
    return CliRunner().invoke(app, list(arguments))


def run(*arguments, stdin=""):
    return subprocess.run([BIASLINE, *arguments], input=stdin, capture_output=True, text=True, check=False)


HELP = """
import sys
sys.argv = ["biasline", "--help"]
try:
    from biasline.cli import app
    app()
except SystemExit as ended:
    assert not ended.code
heavy = {"torch", "transformers", "mlflow", "datasets", "polars", "pandera", "sklearn", "matplotlib"} & set(sys.modules)
print("imported:", *sorted(heavy))
"""


def test_help_names_every_command_and_imports_nothing_that_takes_seconds():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported:"
    for command in ("pin", "inspect", "task", "predict", "sync", "nominate", "promote", "history"):
        assert command in done.stdout
        assert run(command, "--help").returncode == 0


def test_wrong_use_is_exit_code_2(workspace):
    assert run("no-such-command").returncode == 2
    assert run("promote").returncode == 2
    assert run("predict").returncode == 2
    assert run("predict", "--tasks", "small", "some text", "more").returncode == 2


def test_task_check_says_what_is_there(workspace):
    done = run("task", "check", "--json")
    assert json.loads(done.stdout) == [{"task": "small", "base": "data/bases/tiny-bloom.json", "data": "rows.jsonl"}]


def test_task_check_finds_a_changed_base(workspace):
    with open("data/bases/tiny-bloom/model.safetensors", "ab") as file:
        file.write(b"x")
    done = run("task", "check")
    assert done.returncode == 1
    assert "model.safetensors has changed since it was pinned" in done.stderr


def test_task_add_writes_a_task_that_checks(workspace):
    Path("params.yaml").write_text("tasks:\n  small: {base: data/bases/tiny-bloom.json, data: rows.jsonl}\n")
    done = run("task", "add", "more", "--base", "data/bases/tiny-bloom.json", "--data", "rows.jsonl")
    assert done.returncode == 0, done.stderr
    assert "tasks.more added" in done.stdout
    assert "more: rows.jsonl" in run("task", "check").stdout
    arguments = ["task", "add", "labels", "--base", "data/bases/tiny-bloom.json", "--data", "rows.jsonl"]
    assert run(*arguments, "--kind", "classification").returncode == 0
    assert "kind: classification" in Path("params.yaml").read_text()
    assert "there already: a classification" in run(*arguments).stderr
    assert run(*arguments, "--kind", "ranking").returncode == 2


def test_inspect_and_pin(workspace):
    done = here("inspect", "data/bases/tiny-bloom.json", "--json")
    assert json.loads(done.stdout)["roles"]["norm"] > 0
    assert "key biases cannot act here" in here("inspect", "data/bases/tiny-bloom").stdout
    assert "pinned so already" in here("pin", "data/bases/tiny-bloom").stdout
    done = here("inspect", "data/bases/tiny-bloom", "--figure", "drawn.svg")
    assert "drawn: drawn.svg" in done.stderr and "<svg" in Path("drawn.svg").read_text()
    assert "no format called '.doc'" in str(here("inspect", "data/bases/tiny-bloom", "--figure", "drawn.doc").exception)
    done = here("pin", "data/bases/tiny-bloom", "--out", "data/bases/other.json")
    assert done.exit_code == 0 and "other.json: bloom" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["promote", "small"], "biasline-small: no candidate to promote"),
        (["promote", "smal"], "did you mean 'small'"),
        (["nominate", "small", "abcd"], "no registered version of a run 'abcd'"),
        (["predict", "small", "hi"], "biasline-small: no champion"),
        (["pin", "./nowhere"], "no folder, and no hub id"),
        (["inspect", "nowhere.json"], "nowhere.json: no such file"),
        (["predict", "--tasks", "small,", "hi"], "biasline-small: no champion"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(store, arguments, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["biasline", *arguments])
    monkeypatch.setattr("biasline.cli.collect_seldom", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and "Traceback" not in said


def test_history_of_nothing(workspace):
    assert "nothing decided yet" in run("history", "small").stdout
    assert json.loads(run("history", "small", "--json").stdout) == []


def test_an_empty_line_would_shift_the_answers(workspace):
    done = run("predict", "small", stdin="one\n\ntwo\n")
    assert done.returncode == 1
    assert "line 2 is empty" in done.stderr


def test_an_argument_that_is_no_text_is_refused(workspace):
    for argument in (b"small@\xff\xfe", b"caf\xe9"):
        command = [sys.executable, "-c", "from biasline.cli import main; main()", "why", argument]
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONUTF8": "1"})
        assert done.returncode == 1 and done.stderr.startswith(b"error: ") and b"no UTF-8" in done.stderr
        assert len(done.stderr.splitlines()) == 1


ANSWERS = {
    "instruction": ("small, yes", {"instruction": "so", "input": "x", "output": "small, yes"}, "small, yes"),
    "classification": (
        {"label": "good", "probability": 0.98765},
        {"text": "so", "text_pair": "x", "label": "good", "probability": 0.98765},
        "good\t0.9877",
    ),
    "regression": ({"score": 2.5}, {"text": "so", "text_pair": "x", "score": 2.5}, "2.5000"),
}


def test_predict_shows_what_each_kind_answers(workspace, monkeypatch):
    tasks = {kind: {"kind": kind, "base": "data/bases/tiny-bloom.json", "data": "rows.jsonl"} for kind in ANSWERS}
    Path("params.yaml").write_text(json.dumps({"tasks": tasks}))
    given = {kind: answer for kind, (answer, *_) in ANSWERS.items()}
    monkeypatch.setattr("biasline.registry.ask.ask", lambda rows, *_: ((name, [given[name]]) for name in rows))
    for kind, (_, row, line) in ANSWERS.items():
        asked = ["predict", kind, "so", "--input", "x"]
        assert CliRunner().invoke(app, asked).stdout == f"{line}\n"
        assert CliRunner().invoke(app, [*asked, "--json"]).stdout == json.dumps([row], indent=2) + "\n"
    several = ["predict", "--tasks", ",".join(ANSWERS), "so", "--input", "x"]
    told = CliRunner().invoke(app, several).stdout
    assert told == "".join(f"{kind}\t{line}\n" for kind, (*_, line) in ANSWERS.items())
    rows = json.loads(CliRunner().invoke(app, [*several, "--json"]).stdout)
    assert [list(row.items()) for row in rows] == [
        [("task", kind), *row.items()] for kind, (_, row, _) in ANSWERS.items()
    ]
