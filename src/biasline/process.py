"""What each of our processes does: it starts without delay, and ends by a line and an exit code."""

import atexit
import gc
import re
import sys
from collections.abc import Callable

from biasline.errors import BiaslineError, first_line

# How MLflow words that a server did not answer, or only the proxy before it did.
_AWAY = re.compile("failed with (timeout )?exception|failed with error code 5[0-9][0-9]")


def collect_seldom() -> None:
    """Have Python look for garbage after many more new objects than it does by default, and not at the end.

    The modules of torch, transformers and mlflow are hundreds of thousands of objects and no garbage. Walking through
    them again and again, while they are imported and once more at the exit, is two fifths of a stage that has little
    else to do.
    """
    gc.set_threshold(100_000, 50, 100)
    atexit.register(gc.freeze)


def exit_on_error(run: Callable[[], None]) -> None:
    """Run a program's body; print a `BiaslineError` as one line and leave with exit code 1."""
    try:
        run()
    except BiaslineError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except PermissionError as error:
        told = f"{error.filename or 'the system'}: {error.strerror or error}"
        print(f"error: {told} → mend that, or have whoever may do it", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        # The tracking store's word, from whichever call; neither mlflow nor what it stands on is imported for this.
        if not type(error).__module__.startswith(("mlflow.", "sqlalchemy.", "requests.")):
            raise
        print(f"error: the tracking store: {store_word(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def store_word(error: Exception) -> str:
    """A store's error in one line, with the way out: one that is away, or one that answered and refused.

    Args:
        error: of MLflow, or of the database or the connection below it.
    """
    told, code = first_line(error), getattr(error, "error_code", "")
    unanswered = type(error).__module__.startswith("requests.") and getattr(error, "response", None) is None
    away = unanswered or code == "TEMPORARILY_UNAVAILABLE" or bool(_AWAY.search(told))
    if "readonly database" in told:
        way = "it may only be read here; whoever may write there can do this"
    elif "No such artifact" in told:
        told, way = f"it has lost a file: {told}", "`biasline sync` makes it again from its record"
    elif code == "RESOURCE_DOES_NOT_EXIST":
        way = "`biasline sync` makes again what it has lost"
    elif away:
        way = "`biasline sync` once it answers"
    else:
        told, way = f"it refused: {told}", "mend what it names; its own log may say more"
    return f"{told} → {way}"


def release_memory() -> None:
    """Give memory that was freed back to the system, where C's library keeps it for later (glibc's does, by thread)."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
