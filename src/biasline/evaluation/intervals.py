"""How a number with its interval is written."""


def format_interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """The ends of an interval in brackets, as they follow their number: ` [0.412, 0.588]`.

    Args:
        form: a format specification for both ends.

    Returns:
        an empty text where an end is None, as for a number that has no interval.
    """
    return "" if low is None or high is None else f" [{format(low, form)}, {format(high, form)}]"
