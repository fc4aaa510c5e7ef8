"""One task's life in the registry: a champion, a worse model that is refused, a better one, and back again."""

import shutil
from dataclasses import dataclass

from typer.testing import CliRunner

from biasline.cli import app
from biasline.layout import TaskPlace
from biasline.params import read_params
from biasline.registry.sync import register
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import ROOT, run_stages

# Heads start at random values: a few steps more or less are to make a difference.
PARAMS = """tasks:
  sentiment:
    kind: classification
    base: data/bases/tiny-bloom.json
    data: reviews.tsv
    tokens: {{max_length: 64}}
    train: {{min_steps: {steps}, epochs: 0.1, learning_rate: {rate}, head_start: random}}
    evaluate: {{slices: [language]}}
    gates: {{floor: 0.6, max_latency: 99, head_margin: 1.0}}
"""


@dataclass(frozen=True)
class Step:
    """What was done, what it printed, its exit code, and then each alias's fingerprint, by MLflow's own client."""

    done: str
    printed: str
    code: int
    aliases: dict[str, str]


def tell(folder):
    """The story in a workspace; the fingerprints of A, B and C, and its steps."""
    shutil.copy(ROOT / "data" / "sentiment" / "raw.tsv", folder / "reviews.tsv")
    made, steps = {}, []

    def trained(name, steps_of_training, rate):
        (folder / "params.yaml").write_text(PARAMS.format(steps=steps_of_training, rate=rate))
        run_stages(read_params(folder / "params.yaml").tasks["sentiment"], TaskPlace("sentiment"))
        record = record_of_workspace("sentiment")
        register(connect(), record)
        made[name] = record.fingerprint

    def step(*command):
        ended = CliRunner().invoke(app, list(command))
        client = connect()
        found = client.get_registered_model("biasline-sentiment").aliases
        versions = {
            alias: client.get_model_version("biasline-sentiment", number).tags["biasline.fingerprint"]
            for alias, number in found.items()
        }
        steps.append(Step(" ".join(command), ended.output, ended.exit_code, versions))

    trained("A", 100, 1e-2)
    step("promote", "sentiment", "--by", "ann", "--reason", "the first that is any good")
    trained("B", 40, 1e-2)
    step("promote", "sentiment", "--by", "bob", "--reason", "half the training time")
    trained("C", 200, 1e-2)
    step("promote", "sentiment", "--by", "bob", "--reason", "all the steps it wants")
    step("rollback", "sentiment", "--by", "ann", "--reason", "customers complain")
    step("history", "sentiment")
    step("verify", "sentiment")
    return made, steps
