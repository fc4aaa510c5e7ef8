"""Promotions that are killed at any step, and fifty at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from biasline.registry import ledger
from biasline.registry.aliases import CHAMPION, PREVIOUS
from biasline.registry.verify import verify
from biasline.serving.registered import aliased
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.registry.test_registry import another

REGISTER = """
import sys
from biasline.registry.sync import register
from biasline.registry import versions
from biasline.tracking.record import Record
from biasline.tracking.store import connect
versions.check_package = lambda record, uri: None
for fingerprint in sys.argv[1:]:
    register(connect(), Record("small", fingerprint))
"""


def run(command, *arguments):
    """Last line of a script's output, read as JSON; everything it said is shown when the test fails."""
    done = subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@pytest.fixture
def fingerprints(trained):
    """Two registered models. By another process: this one must not have the store open when it forks."""
    record = record_of_workspace("small")
    another(record, "b" * 16)
    run(["-c", REGISTER], record.fingerprint, "b" * 16)
    return record.fingerprint, "b" * 16


DECISIONS = str(Path(__file__).with_name("decisions.py"))


@pytest.mark.slow
def test_a_decision_killed_at_any_step_leaves_a_champion_and_the_next_command_mends_the_rest(fingerprints):
    outcomes = run([DECISIONS], "kills", *fingerprints)
    for outcome in outcomes:
        assert outcome["wrong"] == [], outcome
        assert outcome["told"] == [] or "candidate" in outcome["told"][0], outcome
    for what in ("promote", "rollback"):
        done = [outcome for outcome in outcomes if outcome["what"] == what]
        assert [outcome["code"] for outcome in done] == [-9] * (len(done) - 1) + [0]
        # Before the ledger has its line nothing was decided; from there on everything was.
        assert [outcome["new"] for outcome in done] == [False] * 2 + [True] * (len(done) - 2)
        assert len(done) >= 8


@pytest.mark.slow
def test_fifty_decisions_at_once_make_one_history(fingerprints, workspace, trained):
    codes = run([DECISIONS], "crowd", "50", *fingerprints)
    assert set(codes) <= {0, 1}  # 1: a rollback when there was no champion to go back to
    path = trained[1].ledger
    entries = list(ledger.entries(path))
    by = [entry["by"] for entry in entries]
    assert sorted(set(by), key=lambda name: int(name[1:])) == [f"p{number}" for number in range(50)]
    assert sum(entry["decision"] == ledger.NOMINATED for entry in entries) == 50
    champions = []
    for entry in entries:
        if entry["decision"] == ledger.PROMOTED:
            assert entry["previous"] == (champions[-1] if champions else None)
            champions.append(entry["fingerprint"])
        elif entry["decision"] == ledger.ROLLED_BACK:
            assert entry["previous"] == champions.pop() and entry["fingerprint"] == champions[-1]
    client = connect()
    assert aliased(client, "small", CHAMPION).tags["biasline.fingerprint"] == champions[-1]
    if len(champions) > 1:
        assert aliased(client, "small", PREVIOUS).tags["biasline.fingerprint"] == champions[-2]
    assert verify(client, "small")[1] == []
