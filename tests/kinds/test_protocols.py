"""What a kind of task says of itself, and that no room needs to know its name."""

import ast
import subprocess
import sys

import pytest

from biasline.errors import BiaslineError
from biasline.kinds import protocols
from biasline.kinds.answering import ANSWERINGS, find_answering
from biasline.kinds.learning import LEARNINGS, find_learning
from biasline.kinds.protocols import Answering, InData, InEvaluation, InTokens, Learning, asked_by
from biasline.metrics.table import main_metric

# Where a kind may be named: its own files, the table of metrics, the names of GLUE's tasks, the demo's data.
NAMING = {"kinds", "metrics", "glue", "demo"}


def test_both_files_of_a_kind_are_found_by_its_name():
    assert list(LEARNINGS) == list(ANSWERINGS)
    for name, one in ANSWERINGS.items():
        assert one is find_answering(name) and one.learning is find_learning(name)
        assert one.learning.columns.answer not in one.learning.columns.given


def test_an_unknown_kind_is_told_with_those_that_there_are():
    for find in (find_learning, find_answering):
        with pytest.raises(BiaslineError, match="kind 'poem': there is no such kind → use one of instruction, classif"):
            find("poem")


def test_a_kind_that_leaves_something_open_cannot_be_used():
    for base in (Learning, Answering):
        with pytest.raises(TypeError, match="abstract"):
            type("Poem", (base,), {})()


def test_each_kind_has_a_metric_that_it_is_judged_by():
    assert {main_metric(name).name for name in LEARNINGS} >= {"exact_match", "accuracy", "pearson"}


def test_what_a_room_asks_is_listed_once():
    """The parts of a kind do not overlap, so that the code of each can be told from the others'."""
    parts = [part for name, part in vars(protocols).items() if name.startswith("In")]
    names = [name for part in parts for name in asked_by(part)]
    assert len(parts) == 8 and len(names) == len(set(names)) > 20
    assert asked_by(InTokens) == {"encoding", "answers_told"}
    assert "reading" in asked_by(InData) and "compare" in asked_by(InEvaluation)


def test_what_parameters_know_of_kinds_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'polars', 'sklearn', 'datasets', 'mlflow', 'numpy'}"
    script = f"import sys, biasline.params; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_room_names_a_kind(root):
    """Whatever differs from kind to kind is asked of the kind: no comparison, no table, no default by its name."""
    package = root / "src" / "biasline"
    for path in [*package.rglob("*.py"), *(root / "stages").glob("*.py")]:
        room = path.relative_to(package).parts[0].removesuffix(".py") if path.is_relative_to(package) else "stages"
        if room not in NAMING:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant):
                    # A column of instructions is called so, too.
                    named = node.value in LEARNINGS and not is_column(node.value, room)
                    assert not named, f"{path}:{node.lineno} names the kind {node.value!r}"


def is_column(name, room):
    return name in find_learning(name).columns.columns and room in ("data", "tokens", "serving")


def test_the_table_of_metrics_is_no_other_way_to_compare_kinds(root):
    for path in (root / "src" / "biasline" / "metrics").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                assert not {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & set(LEARNINGS)
