"""What each of our processes does: it starts without delay, and ends by a line and an exit code."""

import atexit
import gc
import sys
from collections.abc import Callable

from biasline.errors import BiaslineError, first_line


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
    except Exception as error:
        # The tracking server's word, from whichever call; mlflow itself is not imported for this.
        if not type(error).__module__.startswith("mlflow."):
            raise
        print(f"error: the tracking store: {first_line(error)} → `biasline sync` once it answers", file=sys.stderr)
        raise SystemExit(1) from None
