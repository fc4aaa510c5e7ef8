import numpy as np
import pytest

from biasline.errors import BiaslineError
from biasline.evaluation.own_metrics import OwnScores


def own(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    return OwnScores(path, "instruction")


def test_a_projects_own_scores_see_the_row_and_the_answer(tmp_path):
    scores = own(tmp_path, 'def shorter(row):\n    return len(row["answer"]) <= len(row["output"])\n')
    rows = [{"row": 1, "output": "ab"}, {"row": 2, "output": "a"}]
    found = scores(rows, ["a", "ab"])
    assert list(found) == ["shorter"]
    assert np.array_equal(found["shorter"], [1.0, 0.0])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('def bad(row):\n    return row["nothing"]\n', "bad: row 7: KeyError: 'nothing' → mend the function"),
        ("def bad(row):\n    return float('nan')\n", "bad: row 7: nan is no score"),
        ("def bad(row):\n    return 'much'\n", "bad: row 7: ValueError"),
        ("def exact_match(row):\n    return 1\n", "exact_match is a metric already"),
        ("x = 1\n", "no function in it"),
        ("import nothing_of_the_kind\n", "does not run: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_own_scores_is_told(tmp_path, text, told):
    with pytest.raises(BiaslineError, match=told):
        own(tmp_path, text)([{"row": 7}], ["x"])
