import json

import pytest

from biasline.data import columns
from biasline.data.columns import check_columns
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task


def task(**more):
    return Task(base="b", data="rows.jsonl", **more)


NAMED = [
    (
        {"evaluate": {"slices": ["skil"]}},
        r"evaluate\.slices: no column 'skil'; there are: .*skill, length → mend evaluate",
    ),
    ({"split": {"group": "customer"}}, r"split\.group: no column 'customer'; there are: .*skill → mend split\.group"),
    ({"source": {"columns": {"output": "answr"}}}, r"rows\.jsonl: no column 'answr' \(source\.columns\.output\)"),
    ({"source": {"where": {"skil": "a"}}}, r"rows\.jsonl: no column 'skil' \(source\.where\); it has: "),
    ({"source": {"where": "skil = 'a'"}}, r"rows\.jsonl: no column 'skil' \(source\.where\); it has: "),
    ({"evaluate": {"slices": ["file"]}}, r"no column 'file'"),  # there is but one
]


@pytest.mark.parametrize(("more", "told"), NAMED)
@pytest.mark.parametrize("check", [check_columns, lambda task: validate(task, TaskPlace("small"))])
def test_a_column_that_is_not_there_is_told_before_any_work(workspace, monkeypatch, check, more, told):
    monkeypatch.setattr("biasline.data.validate.check_examples", None)
    with pytest.raises(BiaslineError, match=told):
        check(task(**more))


def test_columns_that_are_there_pass(workspace):
    check_columns(task())
    check_columns(task(evaluate={"slices": ["skill", "length", "instruction"]}, split={"group": "skill"}))
    (workspace / "more.json").write_text(json.dumps([{"question": "a", "answer": "b", "base": "x", "domain": "d"}]))
    named = Task(base="b", data="more.json", evaluate={"slices": ["meta_base", "domain"]})
    check_columns(named)
    with pytest.raises(BiaslineError, match="no column 'base'; there are: .*meta_base"):
        check_columns(named.model_copy(update={"evaluate": named.evaluate.model_copy(update={"slices": ("base",)})}))


def test_the_rest_of_a_file_is_read_only_for_a_column_that_its_beginning_lacks(workspace, monkeypatch):
    limits = []
    read = columns.read_examples

    def counted(*args, limit=None):
        limits.append(limit)
        return read(*args, limit=limit)

    monkeypatch.setattr(columns, "read_examples", counted)
    monkeypatch.setattr(columns, "_FIRST", 3)
    rows = [{"instruction": f"a{n}", "output": "b", "early": "x"} | ({"late": "y"} if n > 5 else {}) for n in range(9)]
    (workspace / "late.json").write_text(json.dumps(rows))
    late = Task(base="b", data="late.json", evaluate={"slices": ["early"]})
    check_columns(late)
    assert limits == [3]
    check_columns(late.model_copy(update={"evaluate": late.evaluate.model_copy(update={"slices": ("late",)})}))
    assert limits == [3, 3, None]


def test_resolving_a_task_checks_its_columns(workspace, monkeypatch):
    from stages.resolve import resolve

    params = json.loads((workspace / "params.yaml").read_text())
    resolve("small")
    params["tasks"]["small"]["evaluate"]["slices"] = ["skil"]
    (workspace / "params.yaml").write_text(json.dumps(params))
    with pytest.raises(BiaslineError, match="no column 'skil'"):
        resolve("small")
