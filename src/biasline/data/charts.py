"""Small charts in text, as a Markdown page on any forge shows them."""

from collections.abc import Iterable, Sequence

_WIDTH, _RANGES = 30, 10
_CHARS, _LABELS = 80, 20


def bar(count: int, most: int) -> str:
    """A bar of `count` beside the longest one's `most`."""
    return "█" * max(1, round(_WIDTH * count / most)) if count else ""


def spread(values: Sequence[float], unit: str) -> list[str]:
    """Lines of a table: how many values lie in each of ten equal ranges from the lowest to the highest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    step = (high - low) / _RANGES or 1.0
    counts = [0] * _RANGES
    for value in values:
        counts[min(int((value - low) / step), _RANGES - 1)] += 1
    lines = [f"| {unit} | rows | |", "|---:|---:|---|"]
    for place, count in enumerate(counts):
        span = f"{low + place * step:.4g}–{low + (place + 1) * step:.4g}"
        lines.append(f"| {span} | {count:,} | {bar(count, max(counts))} |")
    return lines


def histogram(sizes: Iterable[int], unit: str) -> list[str]:
    """Lines of a table: how many rows have which size, in ranges that double (1, 2–3, 4–7, …)."""
    counts: dict[int, int] = {}
    for size in sizes:
        counts[int(size).bit_length()] = counts.get(int(size).bit_length(), 0) + 1
    lines = [f"| {unit} | rows | |", "|---:|---:|---|"]
    for bits in range(min(counts, default=0), max(counts, default=-1) + 1):
        low, high = (1 << bits) >> 1, (1 << bits) - 1
        count = counts.get(bits, 0)
        span = f"{low:,}" if low >= high else f"{low:,}–{high:,}"
        lines.append(f"| {span} | {count:,} | {bar(count, max(counts.values()))} |")
    return lines


def shares(counts: Sequence[tuple[str, int]], unit: str, counted: str = "rows") -> list[str]:
    """Lines of a table: how many rows have which of some values, the most first; the first of them alone.

    Args:
        counts: values with their number of rows, in that order.
        unit: what a value is.
        counted: what the numbers are of.
    """
    lines = [f"| {unit} | {counted} | |", "|---|---:|---|"]
    lines += [f"| {cell(value)} | {count:,} | {bar(count, counts[0][1])} |" for value, count in counts[:_LABELS]]
    more = len(counts) - _LABELS
    return [*lines, *([f"| and {more:,} more | | |"] if more > 0 else [])]


def cell(value: str | None) -> str:
    """A value as a table cell: unprintable characters spelled out, cut to a glance."""
    if value is None:
        return "*null*"
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= _CHARS else text[: _CHARS - 1] + "…"
