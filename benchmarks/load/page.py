"""The page of what was measured."""

from collections.abc import Mapping
from typing import Any

from benchmarks.load.loops import CLIENTS
from benchmarks.load.project import SHOPS, WORDS


def page(found: dict[str, Any]) -> str:
    told = found["machine"]
    lines = [
        "# The server under load",
        "",
        f"`python -m benchmarks.load` on {told['processor']}, {told['cores']} cores, which the client shares.",
        "Its text says what is measured.",
        f"A closed loop has {CLIENTS} clients; answers have up to {WORDS} tokens of tiny-bloom.",
        "",
    ]
    if one := found.get("start"):
        lines += [
            f"**Start** with {SHOPS:,} tenants and two other tasks: ready after {one['start_s']:.1f} s; after kill -9 "
            f"again after {one['again_s']:.1f} s. The process then has {one['memory_mb']:,.0f} MB.",
            "",
        ]
    if arms := found.get("tenants"):
        lines += ["| tenants in turn | " + " | ".join(arms) + " |", "|---|" + "---:|" * len(arms)]
        for name, what in (
            ("answers a second", "answers_a_second"),
            ("beside one tenant", "a_second"),
            ("p95", "p95_ms"),
        ):
            shown = " | ".join(f"{one[what]:.0f}" if "answers" in name else f"{one[what]:.2f}" for one in arms.values())
            lines.append(f"| {name} | {shown} |")
        lines.append("")
    if both := found.get("servers"):
        lines += [
            "| one row a request | closed loop: a second | p95 | open loop at | p50 | p95 | p99 | failed |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for task, one in both.items():
            for who in ("biasline", "mlflow"):
                shown = one["open"][who]
                lines.append(
                    f"| {task}, {who} | {one[who]['a_second']:.0f} | {one[who]['p95_ms']:.0f} ms | "
                    f"{one['open']['a_second']:.0f} | {_waits(shown)} |"
                )
            half = one["open"]["half"]
            lines.append(f"| {task}, biasline | | | {half['a_second']:.0f} | {_waits(half['biasline'])} |")
        lines += [
            "",
            "Beside `mlflow models serve` (which has the same model for itself): "
            + ", ".join(f"{task} {one['times']:.1f} ×" for task, one in both.items())
            + ".",
            "",
        ]
    if one := found.get("change"):
        lines += [
            f"**Change** under {one['labels_a_second']:.0f} labels and {one['answers_a_second']:.0f} answers a second; "
            "milliseconds:",
            "",
            "| | a label waits at most | p99 | p99 of answers | failed |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, told in (
            ("quiet", "nothing changes"),
            ("versions", "versions of two tasks take each other's place, twelve times"),
            ("fleet", f"a fleet of {SHOPS:,} comes in, within {one['fleet']['served_s']:.0f} s"),
        ):
            shown = " | ".join(f"{one[name][what]:.0f}" for what in ("longest_ms", "p99_ms", "answers_p99_ms"))
            lines.append(f"| {told} | {shown} | {one[name]['failed']} |")
        lines.append("")
    if one := found.get("soak"):
        lines += [
            f"**Soak**: {one['minutes']:g} minutes, {one['answers']:,} answers while aliases moved {one['moves']} "
            f"times: {one['failed']} failed, {one['wrong']} differ from what the delta that their header names says "
            f"alone. Memory {one['memory_mb'][0]:,.0f} to {one['memory_mb'][-1]:,.0f} MB, after the first quarter "
            f"{one['slope_mb_a_minute']:+.2f} MB a minute.",
            "",
        ]
    return "\n".join(lines)


def _waits(told: Mapping[str, float]) -> str:
    return " | ".join(f"{told[name]:.0f} ms" for name in ("p50_ms", "p95_ms", "p99_ms")) + f" | {told['failed']}"
