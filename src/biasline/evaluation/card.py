"""Pages about a trained model: the card, and answers side by side."""

from typing import Any

import polars as pl

from biasline.bitfit import Manifest
from biasline.params import Task


def model_card(
    name: str,
    task: Task,
    metrics: dict[str, Any],
    report: dict[str, Any],
    quality: dict[str, Any],
    slices: pl.DataFrame,
    manifest: Manifest,
) -> str:
    """The model card: data, base, biases, numbers with intervals, limits, how to load."""
    trainable, base, tuned = report["trainable"], metrics["base"], metrics["tuned"]
    roles = ", ".join(f"{role} {count:,}" for role, count in report["roles"].items())
    lines = [
        f"# biasline-{name}",
        "",
        f"A bias-only delta of `{report['base']['name']}` for the task `{name}`: {trainable['total']:,} of "
        f"{report['base']['parameters']:,} parameters trained ({trainable['share']:.4%}), every weight frozen.",
        "",
        "| | exact match | 95 % interval | response perplexity | token accuracy |",
        "|---|---:|---|---:|---:|",
        *(
            f"| {who} | {values['exact_match']:.3f} | {values['exact_match_low']:.3f} … "
            f"{values['exact_match_high']:.3f} | {values['response_perplexity']:.3f} | {values['token_accuracy']:.3f} |"
            for who, values in (("untuned base", base), ("tuned", tuned))
        ),
        "",
        f"On {metrics['rows']} held-out rows (test set {metrics['test_sha256'][:12]}).",
        "",
        "## Data",
        "",
        f"`{task.data}` (sha256 {quality['raw_sha256'][:12]}): {quality['rows']:,} rows, {quality['quarantined']:,} "
        f"quarantined; training {quality['splits']['train']:,}, validation {quality['splits']['valid']:,}, test "
        f"{quality['splits']['test']:,}, split by content hash.",
        "",
        "## Training",
        "",
        f"Biases `{task.train.biases}` ({roles}); learning rate {task.train.learning_rate:g}, {report['steps']} steps "
        f"of {task.train.batch_size} rows, step {report['kept_step']} kept; template `{task.tokens.template}`. "
        f"Fingerprint `{report['fingerprint']}`, base pin {report['base']['digest'][:12]}.",
    ]
    lines += [f"Note: {note}." for note in report["notes"]]
    if slices.height:
        lines += ["", "## Slices", "", "| slice | rows | base | tuned | 95 % interval |", "|---|---:|---:|---:|---|"]
        for row in slices.iter_rows(named=True):
            lines.append(
                f"| {row['slice']} = {row['value']} | {row['rows']} | {row['base']:.3f} | {row['tuned']:.3f} "
                f"| {row['tuned_low']:.3f} … {row['tuned_high']:.3f} |"
            )
    lines += [
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
        'model.predict([{"instruction": "…", "input": ""}])',
        "```",
        "",
        f"Trained values per tensor: {len(manifest.values)} tensors, format {manifest.format_version}.",
        "",
    ]
    return "\n".join(lines)


def samples_page(predictions: pl.DataFrame, count: int) -> str:
    """samples.md: the first test rows with the answers of both models."""
    lines = ["# Samples", "", "| row | prompt | reference | base | tuned |", "|---:|---|---|---|---|"]
    for row in predictions.head(count).iter_rows(named=True):
        prompt = " / ".join(part for part in (row["instruction"], row["input"]) if part)
        mark = " ✓" if row["tuned_exact"] else " ✗"
        cells = [prompt, row["output"], row["base"], row["tuned"]]
        lines.append(f"| {row['row']} | " + " | ".join(_cell(cell) for cell in cells) + mark + " |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return flat if len(flat) <= 120 else flat[:119] + "…"
