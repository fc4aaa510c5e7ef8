import subprocess
import sys

# What is registered first is run last.
CHILD = """
import atexit, gc, sys
passes = []
gc.callbacks.append(lambda phase, info: passes.append(phase == "start"))
atexit.register(lambda: print(sum(passes), gc.get_freeze_count() > 100_000))
if "seldom" in sys.argv:
    from biasline.process import collect_seldom
    collect_seldom()
import transformers.modeling_utils
"""


def _passes(*arguments: str) -> tuple[int, bool]:
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True)
    passes, frozen = done.stdout.split()
    return int(passes), frozen == "True"


def test_imports_are_not_searched_for_garbage_again_and_again() -> None:
    plain, plain_frozen = _passes()
    seldom, frozen = _passes("seldom")
    assert plain > 200
    assert seldom < plain / 20
    assert (plain_frozen, frozen) == (False, True)
