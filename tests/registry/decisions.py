"""Decisions by many processes, and by one that is killed at a chosen step; run as a script by `test_crashes.py`.

Each process is a fork of one that has imported all it needs and opened nothing, so it starts within milliseconds.
"""

import json
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

# Imported here once, and not by each of the processes.
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import scipy.stats  # noqa: F401

from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry import ledger, verify
from biasline.registry.aliases import settle
from biasline.registry.promote import nominate, promote, rollback
from biasline.tracking.store import connect

LENIENT = Task(base="b", data="d", gates={"floor": 0.0, "better_than_base": False, "margin": 1.0, "max_latency": 99.0})
# Everything that changes the store. A kill before each, and after the last, is a kill between any two.
MUTATIONS = (
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
    "delete_model_version_tag",
)


def forked(work):
    """Run `work` in a process of its own; returns the process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BiaslineError as error:
        print(f"refused: {error}", flush=True)
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(2)


def ended(child):
    """The exit code of a process; less the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step, work):
    """Do `work`, killed before its `step`-th change of ledger or store; the ledger counts twice: half a line, none."""

    def run():
        client, left = connect(), [step]

        def counted(call):
            def counting(*args, **kwargs):
                if left[0] == 0:
                    die()
                left[0] -= 1
                return call(*args, **kwargs)

            return counting

        for name in MUTATIONS:
            setattr(client, name, counted(getattr(client, name)))
        append = ledger.append

        def torn(path, *args, **told):
            if left[0] == 0:
                die()
            if left[0] == 1:
                before = path.stat().st_size if path.is_file() else 0
                append(path, *args, **told)
                os.truncate(path, before + (path.stat().st_size - before) // 2)
                die()
            left[0] -= 2
            return append(path, *args, **told)

        ledger.append = torn
        work(client)

    return ended(forked(run))


def champion_and_faults(report):
    """In a process of its own, what each command begins with: what it says, what `verify` finds, who is champion."""

    def run():
        client = connect()
        told = settle(client, "small")
        found = client.get_model_version_by_alias("biasline-small", "champion")
        wrong = verify.verify(client, "small")[1]
        state = {"told": told, "wrong": wrong, "champion": found.tags["biasline.fingerprint"]}
        Path(report).write_text(json.dumps(state))

    assert ended(forked(run)) == 0
    return json.loads(Path(report).read_text())


def kills(one, other):
    """Kill promotions, then rollbacks, at each step in turn; prints what each left behind, as JSON."""
    outcomes = []
    verify._fault = lambda version, judged: ""  # decisions touch no files, and to load each model takes a second
    assert ended(forked(lambda: promote(connect(), "small", LENIENT, "ann", ""))) == 0
    for what in ("promote", "rollback"):
        for step in range(60):
            before = champion_and_faults("state.json")["champion"]
            candidate = other if before == one else one
            made = len(ledger.champions(TaskPlace("small").ledger))
            if what == "promote" or made < 2:
                assert ended(forked(lambda name=candidate: nominate(connect(), "small", name, "ann", ""))) == 0
            if what == "rollback" and made < 2:
                assert ended(forked(lambda: promote(connect(), "small", LENIENT, "ann", ""))) == 0
                before, candidate = candidate, before
            ways = {"promote": partial(promote, params=LENIENT), "rollback": rollback}
            code = killed_at(step, partial(ways[what], task="small", by="ann", reason=str(step)))
            state = champion_and_faults("state.json")
            outcomes.append({"what": what, "step": step, "code": code, "new": state["champion"] != before} | state)
            if code == 0:
                break
    print(json.dumps(outcomes))


def crowd(count, *fingerprints):
    """So many processes at once, each of which nominates and promotes, every fifth rolls back; prints exit codes."""

    def work(number):
        client = connect()
        nominate(client, "small", fingerprints[number % len(fingerprints)], f"p{number}", "")
        if number % 5 == 4:
            rollback(client, "small", f"p{number}", "")
        else:
            promote(client, "small", LENIENT, f"p{number}", "")

    children = [forked(lambda number=number: work(number)) for number in range(int(count))]
    print(json.dumps([ended(child) for child in children]))


if __name__ == "__main__":
    {"kills": kills, "crowd": crowd}[sys.argv[1]](*sys.argv[2:])
