"""Promotion as a team lives it, by the commands that it types."""

import pytest

from biasline.tracking.store import connect
from tests.pipeline.story import tell


@pytest.mark.draws
@pytest.mark.slow
def test_a_champion_a_refusal_a_better_one_and_back(workspace):
    made, (first, worse, better, back, history, verified) = tell(workspace)
    for step in (first, worse, better, back, history, verified):
        print(f"$ biasline {step.done}\n{step.printed}")
    assert first.code == 0 and "is champion now" in first.printed
    assert first.aliases == {"candidate": made["A"], "champion": made["A"]}

    assert worse.code == 1 and ": refused, worse than the champion**" in worse.printed
    assert "| not worse than the champion | FAILED | worse than version 1" in worse.printed
    assert worse.aliases == {"candidate": made["B"], "champion": made["A"]}

    assert better.code == 0 and "| not worse than the champion | passed | " in better.printed
    assert better.aliases == {"candidate": made["C"], "champion": made["C"], "previous": made["A"]}

    assert back.code == 0 and "is champion again" in back.printed
    assert back.aliases == {"candidate": made["C"], "champion": made["A"]}

    lines = history.printed.splitlines()
    words = ["promoted", "refused", "promoted", "rolled back to"]
    for line, word, name, by in zip(lines, words, "ABCA", ["ann", "bob", "bob", "ann"], strict=True):
        assert word in line and made[name] in line and f"by {by}" in line
    assert verified.code == 0 and "WRONG" not in verified.printed

    versions = connect().search_model_versions("name = 'biasline-sentiment'")
    told = {version.tags["biasline.fingerprint"]: version.tags for version in versions}
    assert {name: told[made[name]]["decision"] for name in "ABC"} == {
        "A": "rolled back to",
        "B": "refused",
        "C": "promoted",
    }
    assert told[made["B"]]["decision.standing"] == "worse" and told[made["B"]]["decision.by"] == "bob"
