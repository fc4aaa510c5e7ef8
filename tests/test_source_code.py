"""Which modules a program runs, and a hash of what they do that their wording does not change."""

import shutil
from pathlib import Path

import pytest

from biasline.source_code import PACKAGE, code_sha256, import_closure

PROGRAM = '''"""A program."""

from typing import TYPE_CHECKING

import json
from house import ground
from house.upper.room import work

if TYPE_CHECKING:
    from house.upper import unused


def later():
    from house.upper import lazy
    return lazy
'''


@pytest.fixture
def house(tmp_path) -> Path:
    """A package of a few modules."""
    package = tmp_path / "house"
    files = {
        "__init__.py": "",
        "ground.py": "",
        "alone.py": "",
        "upper/__init__.py": "",
        "upper/room.py": "import house.upper.below\n\ndef work(): ...\n",
        "upper/below.py": "from house import ground\n",
        "upper/lazy.py": "",
        "upper/unused.py": "from house import alone\n",
        "program.py": PROGRAM,
    }
    for name, text in files.items():
        (package / name).parent.mkdir(exist_ok=True, parents=True)
        (package / name).write_text(text)
    return package


def test_what_a_program_imports_is_found_wherever_it_does_so(house):
    found = import_closure(house / "program.py", house)
    assert list(found) == ["", "ground", "program", "upper", "upper.below", "upper.lazy", "upper.room"]
    assert found["upper"] == house / "upper" / "__init__.py" and found["ground"] == house / "ground.py"


def test_a_program_outside_of_the_package_is_no_part_of_it(house):
    outside = shutil.move(house / "program.py", house.parent / "program.py")
    assert list(import_closure(outside, house)) == ["", "ground", "upper", "upper.below", "upper.lazy", "upper.room"]


def test_a_module_that_is_left_out_brings_nothing_in(house):
    assert list(import_closure(house / "program.py", house, ["upper"])) == ["", "ground", "program"]
    assert "upper.below" not in import_closure(house / "program.py", house, ["upper.room"])


@pytest.mark.parametrize(
    "by_name",
    [
        "from importlib import import_module\nFOUND = import_module(f'{__name__}.lazy')\n",
        "from house.declared import declared\nFOUND = declared(__name__, 'KIND')\n",
    ],
)
def test_a_room_that_finds_its_modules_by_name_has_them_all(house, by_name):
    (house / "upper" / "__init__.py").write_text(by_name)
    found = import_closure(house / "program.py", house)
    assert {"upper.lazy", "upper.unused", "alone"} <= set(found)


CODE = '''"""About."""


class Room:
    """A room."""

    def size(self, width, height=2):
        """Its size."""
        if width < 0:
            raise ValueError(f"{width} is below zero")
        return width * height  # square metres
'''
SAME = {
    "docstring of a module": ("About.", "About something else."),
    "docstring of a class": ("A room.", "The room.\n\n    With windows."),
    "no docstring": ('        """Its size."""\n', ""),
    "comment": ("square metres", "in square metres"),
    "layout": ("(self, width, height=2)", "(\n        self,\n        width,\n        height=2,\n    )"),
    "text of an error": ("is below zero", "is negative"),
}
OTHER = {
    "constant": ("height=2", "height=3"),
    "operator": ("*", "+"),
    "name": ("def size", "def area"),
    "condition": ("< 0", "<= 0"),
    "kind of error": ("ValueError", "TypeError"),
    "what the text of an error calls": ("{width} is", "{area(width)} is"),
    "statement": ("        return", "        width += 1\n        return"),
}


def hash_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"  # each read once
    path.write_text(text)
    return code_sha256({"module": path})


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_what_a_text_says_is_no_part_of_the_code(tmp_path, old, new):
    assert old in CODE and hash_of(tmp_path, CODE.replace(old, new)) == hash_of(tmp_path, CODE)


@pytest.mark.parametrize(("old", "new"), OTHER.values(), ids=OTHER)
def test_what_may_change_a_value_is(tmp_path, old, new):
    assert old in CODE and hash_of(tmp_path, CODE.replace(old, new)) != hash_of(tmp_path, CODE)


def test_what_a_module_imports_beside_what_a_type_checker_does_is_found(house):
    (house / "ground.py").write_text("if TYPE_CHECKING:\n    import os\nelse:\n    from house import alone\n")
    assert "alone" in import_closure(house / "program.py", house)


def test_what_cannot_be_followed_is_no_silent_hole(house):
    (house / "ground.py").write_text("import importlib\nimportlib.import_module('house.alone')\n")
    with pytest.raises(AssertionError, match="ground.py: what a module imports by name is not followed"):
        import_closure(house / "program.py", house)


def test_names_of_modules_count(tmp_path):
    path = tmp_path / "code.py"
    path.write_text(CODE)
    assert code_sha256({"one": path}) != code_sha256({"other": path})


def test_a_text_that_is_no_docstring_counts(tmp_path):
    assert hash_of(tmp_path, "x = 'a'") != hash_of(tmp_path, "x = 'b'")
    assert hash_of(tmp_path, "def f():\n    return 'a'") != hash_of(tmp_path, "def f():\n    return 'b'")


def test_this_package_is_read_whole():
    found = import_closure(PACKAGE / "cli" / "__init__.py")
    assert {"params", "bitfit.delta", "registry.promote"} <= set(found) and len(found) > 60
    assert len(code_sha256(found)) == 64
