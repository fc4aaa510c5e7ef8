"""A search's outcome in words and as plain data."""

from typing import Any

from biasline.search.tune import Outcome


def as_data(outcome: Outcome) -> dict[str, Any]:
    """All that is told."""
    verdict = outcome.verdict
    return {
        "trials": outcome.trials,
        "running": outcome.running,
        "ended": outcome.ended,
        "trainings": round(outcome.cost, 2),
        "better": verdict.better,
        "shown": verdict.shown,
        "best": {"trial": verdict.best.number, "train": dict(verdict.best.changes)},
        "gain": verdict.gain,
        "error": verdict.error,
        "optimism": verdict.optimism,
        "importance": outcome.importance,
        "points": outcome.points,
    }


def as_text(task: str, outcome: Outcome) -> str:
    """What a person reads, the lines for params.yaml last."""
    verdict = outcome.verdict
    ended = f"; {outcome.ended}" * bool(outcome.ended)
    lines = [f"{outcome.trials} trials, with the steps of {outcome.cost:.1f} trainings{ended}"]
    if outcome.running:
        lines.append(f"other processes are still at {outcome.running} of them: ask again later")
    unit = "of the targets right" if outcome.labelled else "of loss"
    number = verdict.best.number
    gain = f"{verdict.gain:+.4f} ± {verdict.error:.4f} {unit} on the validation rows"
    if not verdict.best.changes:
        lines.append("nothing beats the parameters as they are")
    elif not verdict.better:
        lines.append(
            f"nothing beats the parameters as they are: trial {number} looks better ({gain}), as the best of "
            f"{verdict.among} does by {verdict.optimism:.4f} anyway"
        )
    else:
        told = "shown at 95 %" if verdict.shown else "not shown at 95 %: more validation rows would tell"
        lines.append(
            f"trial {number} is better: {gain}, {verdict.optimism:.4f} of it for being the best of the "
            f"{verdict.among} that were trained to the end; {told}"
        )
        if "scale" in str(verdict.best.changes.get("biases", "")):
            lines.append("it trains scales beside the biases, which is no longer BitFit proper")
        lines += ["", "# params.yaml", "tasks:", f"  {task}:", "    train:"]
        lines += [f"      {name}: {value}" for name, value in verdict.best.changes.items()]
    return "\n".join(lines)
