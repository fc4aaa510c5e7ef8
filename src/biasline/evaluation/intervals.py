"""How a number with its interval is written."""


def format_interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """The ends of an interval in brackets, as they follow their number: ` [0.412, 0.588]`.

    Args:
        low: the lower end, if there is one.
        high: the upper end.
        form: a format specification for both ends.

    Returns:
        an empty text where an end is None, as for a number that has no interval.
    """
    return "" if low is None or high is None else f" [{format(low, form)}, {format(high, form)}]"
