"""A report as a page, with pictures of the days."""

from pathlib import Path

from biasline.figures.canvas import new_figures, save_figure
from biasline.figures.palette import COLORS
from biasline.watching.drift import Check
from biasline.watching.watch import Report

PICTURE = "days.png"
_NAMED = 50


def page(report: Report, picture: bool) -> str:
    """Markdown.

    Args:
        report: what was found.
        picture: whether there is one of the days beside the page.
    """
    when = f", asked from {report.since[:16]} to {report.until[:16]}" if report.since else ""
    lines = [
        f"# biasline-{report.task} version {report.version}: {report.verdict}",
        "",
        f"{report.rows:,} rows of users{when}, beside the {report.before:,} test rows of its evaluation (training "
        f"`{report.fingerprint}`).",
        "",
        "| | before → now | distance | 95 % interval | matters from | p | |",
        "|---|---|---:|---|---:|---:|---|",
        *(_line(check) for check in report.checks),
        "",
        f"An alarm needs a p-value that holds for all checks together (Holm): one quiet report in {1 / report.level:g} "
        "has one. And it needs a distance that matters.",
        "",
    ]
    if report.near_training is not None:
        lines += [f"{report.near_training:.1%} of the rows nearly repeat a training row.", ""]
    if report.right is not None:
        lines += [f"Right: {report.right[0]:.1%} of {report.right[1]:,} rows whose right answer came along.", ""]
    if len(report.models) > 1:
        told = ", ".join(f"`{name}` {count:,}" for name, count in report.models.items())
        lines += [f"Answered by several trainings: {told}.", ""]
    lines += _tenants(report)
    if picture:
        lines += [f"![rows, lengths and answers by day]({PICTURE})", ""]
    if report.by_day:
        names = list(report.by_day[0].said)
        lines += [
            f"| day | rows | median length |{''.join(f' {name} |' for name in names)}",
            f"|---|---:|---:|{'---:|' * len(names)}",
            *(
                f"| {day.day} | {day.rows:,} | {day.length:g} |"
                + "".join(f" {share:.1%} |" for share in day.said.values())
                for day in report.by_day
            ),
            "",
        ]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


def draw(report: Report, path: Path) -> bool:
    """Rows, lengths and answers by day; whether there are days to draw."""
    if len(report.by_day) < 2:
        return False
    figure, (left, middle, right) = new_figures(12, 3.2, 3)
    days = [day.day for day in report.by_day]
    for axes, values, title in (
        (left, [day.rows for day in report.by_day], "rows"),
        (middle, [day.length for day in report.by_day], "median length of texts, characters"),
    ):
        axes.bar(days, values, color=COLORS[0])
        axes.set_title(title)
    for color, name in zip(COLORS, report.by_day[0].said, strict=False):
        right.plot(days, [day.said[name] for day in report.by_day], color=color, marker="o", label=name)
    right.set_title("share of answers")
    if report.by_day[0].said:
        right.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.tick_params(axis="x", rotation=60, labelsize=8)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_tick_params(labelleft=True)
    save_figure(figure, path)
    return True


def _line(check: Check) -> str:
    if not check.told:
        few = min(check.before, check.now)
        return f"| {check.name} | | | | {check.least:g} | | too few rows, or too few to tell apart ({few:,}) |"
    return (
        f"| {check.name} | {check.told} | {check.distance:.3f} | {check.low:.3f} to {check.high:.3f} | "
        f"{check.least:g} | {check.p:.2g} | {'**changed**' if check.alarms else ''} |"
    )


def _tenants(report: Report) -> list[str]:
    if not report.tenants_tested and not report.tenants_few:
        return []
    lines = [
        "## Tenants",
        "",
        f"{len(report.tenants):,} of {report.tenants_tested:,} changed (of those named, {report.tenants_rate:.0%} at "
        f"most did not); {report.tenants_few:,} have too few rows to be looked at by themselves.",
        "",
    ]
    if report.tenants:
        lines += ["| tenant | | before → now | distance | p |", "|---|---|---|---:|---:|"]
        for name, checks in list(report.tenants.items())[:_NAMED]:
            lines += [f"| {name} | {one.name} | {one.told} | {one.distance:.3f} | {one.p:.2g} |" for one in checks]
        lines.append("")
    return lines
