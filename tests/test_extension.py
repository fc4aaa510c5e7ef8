"""The promise of docs/extending.md: a kind, a method and a metric declared here go through the stages."""

import json
from typing import ClassVar

import polars as pl
import pyarrow as pa
import pytest
import torch
from polars.testing import assert_frame_equal
from torch.nn import functional

from biasline.errors import BiaslineError
from biasline.kinds.answering import ANSWERINGS
from biasline.kinds.columns import TEXTS, Columns
from biasline.kinds.headed import HeadedAnswering
from biasline.kinds.learning import LEARNINGS
from biasline.kinds.protocols import Learning
from biasline.layout import DELTA_FILE, TaskPlace
from biasline.metrics import table
from biasline.metrics.metric import Metric
from biasline.params import METHOD_SPECS, Task
from biasline.params.method_spec import MethodSpec, NoParameters
from biasline.registry.aliases import CANDIDATE
from biasline.registry.evidence import shown_by
from biasline.registry.gates import judge
from biasline.registry.sync import register_workspace
from biasline.serving.registered import aliased, read_package
from biasline.serving.rescore import scored_on
from biasline.tracking.contents import run_name, run_params
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from biasline.training.methods import METHODS, Method, PeakRates
from biasline.training.methods.delta import prepared_delta, restore_delta
from tests.conftest import run_stages

pytestmark = pytest.mark.e2e  # whole stages


class Counting(Learning):
    """How many there are of something in a text, by a head that gives the logarithm of a rate."""

    name = "counting"
    order = 9
    told = "a text and how many there are of something in it"
    columns = Columns(
        prompt=("text",), answer="count", aliases={"text": TEXTS["text"], "count": ("count", "n")}, looks="score"
    )

    def rules(self):
        from biasline.data.rules import Rule

        whole = pl.col("count").str.contains(r"^[0-9]+$")
        return [Rule("no_count", "it is no whole number", lambda _: whole, ("count",))]

    def page_lines(self, good):
        return [f"At most {good['count'].cast(pl.Int64).max()}.", ""]

    def encoding(self, task, tokenizer, folder, train):
        from biasline.tokens.encoding import Encoding, encode_texts
        from biasline.tokens.texts import TextEncoder

        texts = TextEncoder(tokenizer, task.tokens.max_length, False)

        def encode(_, frame):
            counts = frame["count"].cast(pl.Float32).to_arrow()
            return encode_texts(texts, frame.with_columns(pl.lit("").alias("text_pair")), pa.array(counts))

        def show(row):
            return f"{tokenizer.decode(row['input_ids'])} → {row['labels']:g}"

        return Encoding({}, encode, "counts", show, "Their count behind an arrow", "count")

    def answers_told(self, summary):
        return "counts"

    def output_names(self, labels):
        return ["rate"]

    def objective(self, train, summary, rows):
        from biasline.training.loss import Scores

        class Rates(Scores):
            def losses(self, model, batch):
                logs = model(**batch.inputs).logits.float().squeeze(-1)
                return functional.poisson_nll_loss(logs, batch.labels, reduction="none")

        return Rates(0.0, 1.0)

    def load(self, pin, folder, load, train, labels):
        from biasline.bases.load import load_classifier

        return load_classifier(pin, folder, load, [], train.seed, train.head, pooling=train.pooling)


class CountingAnswers(HeadedAnswering):
    """Rates beside the training rows' mean."""

    learning = Counting()
    metrics = (
        Metric(
            "near",
            ("counting",),
            row_values=lambda one: abs(one.columns["error"]) <= 1,
            columns=("error",),
            interval="wilson",
        ),
    )
    base_label = "training rows' mean"
    outputs: ClassVar = {"rate": "double"}

    def rates(self, model, rows, pad, batch_size, advance=lambda _: None):
        from biasline.evaluation.heads import head_outputs

        return torch.from_numpy(head_outputs(model, rows, pad, batch_size, advance)[:, 0]).exp().double().numpy()

    def compare(self, task, place, pin, folder, test):
        from biasline.data.clean import read_split
        from biasline.evaluation.compared import Compared
        from biasline.evaluation.headed import load_headed
        from biasline.evaluation.measure import measure, predictions_of

        headed = load_headed(self.learning, task, place, pin, folder, ())
        mean = read_split(place, "train")["count"].cast(pl.Float64).mean()
        asked = headed.asked(lambda *_, advance: None, self.rates)
        counts = test["count"].cast(pl.Float64)
        frame = test.with_columns(base=pl.lit(mean), tuned=pl.Series(asked.tuned))
        frame = frame.with_columns(base_error=pl.col("base") - counts, tuned_error=pl.col("tuned") - counts)
        base, tuned = (
            measure(self.metrics, predictions_of(frame, who, "counting")).values for who in ("base", "tuned")
        )
        return Compared(base, tuned, frame, headed.change, timed=asked.timed)

    def made(self, task, labels):
        return "counts as they are"

    def is_right(self, row):
        return abs(row["tuned_error"]) <= 1

    def answer(self, predictor, records, params):
        found = self.rates(predictor.model, predictor.inputs(records), *predictor.batches)
        return [{"rate": float(rate)} for rate in found]

    def inputs(self, predictor, records, max_new_tokens=None):
        texts = [text for (text,) in predictor.prompt_texts(records)]
        return predictor.text_encoder.texts(texts, [""] * len(texts))

    def line(self, answer):
        return f"{answer['rate']:.2f}"

    def evaluated(self, predictions):
        return [{"rate": rate} for rate in predictions["tuned"]]

    def rescored(self, predictor, rows, given, own_metrics):
        counts, rates = rows["count"].cast(pl.Float64), pl.Series("tuned", [one["rate"] for one in given])
        return rows.with_columns(rates, (rates - counts).alias("tuned_error"))

    def stock_answer(self, predictor):
        return "model(**inputs).logits.exp().item()"


SPEC = MethodSpec(
    name="values",
    order=9,
    trains="the biases of values",
    parameters=NoParameters,
    artifact=DELTA_FILE,
    registrable=True,
    freezes_base=True,
    card_title="Biases of values, tuned, of",
    card_training=lambda chosen, roles: f"The biases of values ({roles})",
    tuned_part=lambda chosen: "value biases",
    run_params=lambda chosen: {"values": 1},
)


def prepare(model, head, params):
    from biasline.bitfit import tune_biases

    return prepared_delta(tune_biases(model, "value", head=head), "biases of values")


@pytest.fixture
def declared(monkeypatch):
    """A kind with its metric, and a method, for one test."""
    answering = CountingAnswers()
    monkeypatch.setattr(table, "_TABLE", {kind: dict(known) for kind, known in table._TABLE.items()})
    monkeypatch.setitem(LEARNINGS, "counting", answering.learning)
    monkeypatch.setitem(ANSWERINGS, "counting", answering)
    for metric in answering.metrics:
        table.declare(metric)
    monkeypatch.setitem(METHOD_SPECS, "values", SPEC)
    monkeypatch.setitem(
        METHODS, "values", Method(spec=SPEC, peaks=PeakRates(1.0, 1.0), prepare=prepare, restore=restore_delta)
    )
    return answering


def test_a_kind_a_method_and_a_metric_go_through_the_stages(store, declared):
    herds = [(number, number % 5 + 1) for number in range(90)]
    rows = [{"text": "sheep " * count + f"number {number}", "count": str(count)} for number, count in herds]
    rows.append({"text": "many sheep", "count": "-3"})
    (store / "sheep.json").write_text(json.dumps(rows))
    train = {"min_steps": 8, "epochs": 0.1, "batch_size": 8, "method": "values"}
    files = {"base": "data/bases/tiny-bloom.json", "data": "sheep.json"}
    lenient = {"quality": {"off": ["leak"]}, "gates": {"margin": 1.0}}
    task = Task(kind="counting", **files, **lenient, train=train)
    place = TaskPlace("sheep")
    told = run_stages(task, place)

    assert json.loads(place.quality.read_text())["reasons"]["no_count"] == 1
    assert (
        "At most 5." in place.quality_page.read_text() and "Their count behind an arrow." in place.preview.read_text()
    )
    metrics = json.loads(place.metrics.read_text())
    assert metrics["metric"] == "near" and set(metrics["tuned"]) == {"near", "near_low", "near_high"}
    assert told.startswith("near on ")
    card = place.card.read_text()
    assert "Biases of values, tuned, of `tiny-bloom`" in card and "counts as they are" in card
    assert sorted(path.name for path in place.model.iterdir()) == sorted(["train.json", DELTA_FILE])
    params = run_params(record_of_workspace("sheep"), task)
    assert (params["kind"], params["method"], params["values"]) == ("counting", "values", 1)
    assert run_name(task) == "values value biases"

    assert "biasline-sheep version 1, the candidate" in register_workspace(place)
    client = connect()
    version = aliased(client, "sheep", CANDIDATE)
    package, predictions = read_package(version), pl.read_parquet(place.predictions)
    asked = declared.asked(predictions)
    given = package.predictor()(asked)
    assert [one["rate"] for one in given] == pytest.approx(predictions["tuned"].to_list(), rel=1e-4)
    assert declared.line(given[0]) == f"{given[0]['rate']:.2f}"
    assert_frame_equal(scored_on(package, predictions)["tuned_error"].to_frame(), predictions.select("tuned_error"))
    verdict = judge(task, shown_by(client, version), shown_by(client, version))
    assert verdict.metric == "near" and verdict.standing == "not worse"


def test_what_is_not_declared_is_told_with_what_is():
    with pytest.raises(ValueError, match="Input should be 'instruction', 'classification'"):
        Task(kind="counting", base="b", data="d")
    with pytest.raises(BiaslineError, match="'near' is no metric of kind"):
        table.find_metric("regression", "near")
