"""How long a text a store takes: a server's PostgreSQL or MySQL refuses what SQLite takes. Equal for all stores."""

# In characters, by the columns of MLflow's tables.
RUN_NAME = 250
PARAM = 6_000
RUN_TAG = 8_000
DESCRIPTION = REGISTRY_TAG = 5_000


def fitted(text: str, limit: int, ending: str = "…") -> str:
    """A text that a column takes.

    Args:
        text: any; without the character NUL, which PostgreSQL refuses.
        limit: how many characters it may have.
        ending: what a text that is too long ends with, behind the last of its lines that fits.

    Returns:
        the text itself where it is short enough.
    """
    text = text.replace("\0", "\ufffd")
    if len(text) <= limit:
        return text
    cut = text[: limit - len(ending)]
    lines = cut[: cut.rfind("\n") + 1]
    # A single long line would leave next to nothing.
    return (lines if len(lines) > limit // 2 else cut) + ending
