"""Pages about a trained model: the card, and answers side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from biasline.evaluation.cells import cell, prompt_of
from biasline.evaluation.intervals import format_interval
from biasline.kinds.answering import find_answering
from biasline.kinds.protocols import Answering, Cheaper
from biasline.metrics.table import label_of
from biasline.params import Task, method_spec
from biasline.params.method_spec import scale_count, tuned_count

# Behind an answer: whether it is right, where there is a right or wrong.
_MARKS = {None: "", True: " ✓", False: " ✗"}


def model_card(
    name: str,
    task: Task,
    metrics: dict[str, Any],
    report: dict[str, Any],
    quality: dict[str, Any],
    slices: pl.DataFrame,
    summary: Mapping[str, Any],
    sections: Sequence[str],
) -> str:
    """The model card: data, base, biases, numbers with intervals, limits, how to load.

    Args:
        name: the task's.
        task: its parameters.
        metrics: metrics.json.
        report: train.json.
        quality: quality.json.
        slices: see `slice_table`.
        summary: of the token sets: labels, and what rows lost.
        sections: further lines about the numbers, see `Answering.sections`.
    """
    answering = find_answering(task.kind)
    trainable, base, tuned = report["trainable"], metrics["base"], metrics["tuned"]
    roles = ", ".join(f"{role} {count:,}" for role, count in report["roles"].items())
    scales = scale_count(trainable)
    counted = f", {scales:,} scales" * bool(scales)
    counted += f", and a new head of {trainable['head']:,} beside them" * bool(trainable["head"])
    method = method_spec(report["method"])
    trained = method.card_training(method.settings(task.train), roles)
    frozen = "; every weight of the base frozen" if method.freezes_base else ""
    lines = [
        f"# biasline-{name}",
        "",
        f"{'A delta of biases and scales on' if scales else method.card_title} `{report['base']['name']}` for the task "
        f"`{name}`: {tuned_count(trainable):,} of {report['base']['parameters']:,} parameters trained "
        f"({trainable['share']:.4%}){counted}{frozen}.",
        "",
        *_table(
            {
                answering.base_label: base,
                **({answering.cheaper.long_label: metrics["probe"]} if "probe" in metrics else {}),
                "tuned": tuned,
            },
            metrics["metric"],
            task.kind,
        ),
        "",
        f"On {metrics['rows']} held-out rows (test set {metrics['test_sha256'][:12]}). Judged by "
        f"{label_of(task.kind, metrics['metric'])}: {metrics['metric_reason']}."
        f"{_over_cheaper(metrics, answering.cheaper)}",
        *(
            f"{task.declared(name).title} is left out: {reason}."
            for name, reason in metrics.get("left_out", {}).items()
        ),
        "",
        "## Data",
        "",
        f"`{task.data}` (sha256 {quality['raw_sha256'][:12]}): {quality['rows']:,} rows, {quality['quarantined']:,} "
        f"quarantined; training {quality['splits']['train']:,}, validation {quality['splits']['valid']:,}, test "
        f"{quality['splits']['test']:,}, split by content hash.{_losses(summary)}",
        "",
        "## Training",
        "",
        f"{trained}; learning rate {report['learning_rate']:g}, {report['steps']} steps "
        f"of {task.train.batch_size} rows, step {report['kept_step']} kept; "
        f"{answering.made(task, summary.get('labels', ()))}. "
        f"Fingerprint `{report['fingerprint']}`, base pin {report['base']['digest'][:12]}.",
    ]
    lines += [f"Note: {note}." for note in report["notes"]]
    lines += sections
    if slices.height:
        sliced = task.declared(metrics["sliced_by"], metrics["tuned"])
        lines += ["", f"## Slices ({sliced.long_label})", ""]
        lines += ["| slice | rows | base | tuned | 95 % interval |", "|---|---:|---:|---:|---|"]
        for row in slices.iter_rows(named=True):
            ends = row["tuned_low"], row["tuned_high"]
            interval = "" if None in ends else f"{ends[0]:.3f} … {ends[1]:.3f}"
            values = f"{row['rows']} | {row['base']:.3f} | {row['tuned']:.3f} | {interval}"
            lines.append(f"| {row['slice']} = {row['value']} | {values} |")
    example = answering.example
    if task.tenants.many:
        example = f'{{"{task.tenants.column}": "…", {example.removeprefix("{")}'
    return "\n".join([*lines, *_limits(name, task, example), ""])


def _over_cheaper(metrics: Mapping[str, Any], cheaper: Cheaper) -> str:
    """What the tuned model is better by than what would do without it, as a sentence; empty where that is unknown."""
    if cheaper.gain not in metrics:
        return ""
    mean, low, high = metrics[cheaper.gain].values()
    told = f"It is {'' if low > 0 else 'not shown to be '}better than {cheaper.told}"
    return f" {told}: paired difference {mean:+.3f}{format_interval(low, high, '+.3f')}."


def _losses(summary: Mapping[str, Any]) -> str:
    """What training rows lost on the way into tokens, as a sentence; empty where that is nothing."""
    train = summary["splits"]["train"]
    lost = {
        "left out, since their answer is too long or has no token": len(train["rejected_rows"]),
        "cut": train.get("cut_rows", 0),
        "without their oldest exchanges": sum(train.get("rows_by_lost_exchanges", {}).values()),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in lost.items() if count)
    return f" Of the training rows, in {summary['max_length']} tokens: {told}." if told else ""


def _limits(name: str, task: Task, example: str) -> list[str]:
    if not method_spec(task.train.method).registrable:
        return ["", "## Use", "", "It is here to be compared with: only deltas are registered and promoted."]
    return [
        "",
        "## Limits",
        "",
        "Biases adapt what the base can do already; they teach little that it does not know. The numbers hold for rows "
        "like those of the test set. The delta fits this base alone and is refused by any other.",
        "",
        "## Use",
        "",
        "```python",
        "import mlflow",
        "",
        f'model = mlflow.pyfunc.load_model("models:/biasline-{name}@champion")',
        f"model.predict([{example}])",
        "```",
    ]


def _table(rows: Mapping[str, Mapping[str, float]], first: str, kind: str) -> list[str]:
    """Metrics of several models, one a line; an interval stands behind the value that it is of.

    Args:
        rows: what a model is called → its metrics.
        first: the metric that stands first.
        kind: the task's.
    """
    names = [name for name in rows["tuned"] if not name.endswith(("_low", "_high"))]
    names.sort(key=lambda name: name != first)
    lines = ["| | " + " | ".join(label_of(kind, name) for name in names) + " |", "|---|" + "---|" * len(names)]
    for label, values in rows.items():
        cells = []
        for name in names:
            interval = format_interval(values.get(f"{name}_low"), values.get(f"{name}_high"))
            cells.append(f"{values[name]:.3f}{interval}" if name in values else "")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return [*lines, "", "Brackets: 95 % interval."]


def _given(answer: str | float) -> str:
    return answer if isinstance(answer, str) else f"{answer:.3f}"


def samples_page(predictions: pl.DataFrame, answering: Answering, task: Task) -> str:
    """samples.md: the first test rows with the answers of both models; of a fleet, whose they are."""
    columns, owner = answering.learning.columns, [task.tenants.column] if task.tenants.many else []
    names = [*owner, "prompt", "reference", "base", "tuned"]
    lines = ["# Samples", "", f"| row | {' | '.join(map(cell, names))} |", "|---:|" + "---|" * len(names)]
    for row in predictions.head(task.evaluate.samples).iter_rows(named=True):
        mark = _MARKS[answering.is_right(row)]
        asked = [*(row[name] for name in owner), prompt_of(row, columns)]
        cells = [*asked, row[columns.answer], *(_given(row[who]) for who in ("base", "tuned"))]
        lines.append(f"| {row['row']} | " + " | ".join(map(cell, cells)) + mark + " |")
    return "\n".join([*lines, ""])
