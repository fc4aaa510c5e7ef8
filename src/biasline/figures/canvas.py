"""A figure to draw on, with a font for Chinese labels, and how it is saved."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from biasline.errors import BiaslineError, shown


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes."""
    from matplotlib.figure import Figure

    _take_chinese_font()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def new_figures(width: float, height: float, columns: int) -> tuple[Any, list[Any]]:
    """A figure of a size in inches with several panels beside each other, which share what stands upright."""
    from matplotlib.figure import Figure

    _take_chinese_font()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])


def check_format(path: Path) -> None:
    """Refuse a file whose suffix says no format that can be drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix.removeprefix(".").lower() not in FigureCanvasBase.get_supported_filetypes():
        raise BiaslineError(f"{shown(path)}: no format called {path.suffix or 'so'!r}", "end it in .png, .svg or .pdf")


def save_figure(figure: Any, path: Path) -> None:
    """Draw a figure into a file; its suffix says the format."""
    check_format(path)
    try:
        figure.savefig(path)
    except OSError as error:
        raise BiaslineError(f"{shown(path)}: cannot be written: {error.strerror}") from None


def chinese_font() -> Path | None:
    """The file of a font that has Chinese letters; None where it is not installed."""
    # The package's own import would set styles of its own.
    found = find_spec("zhplot")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / "fonts" / "NotoSansSC-Regular.ttf"
    return path if path.is_file() else None


@cache
def _take_chinese_font() -> None:
    """Draw Chinese letters with Noto Sans SC; matplotlib brings no font that has them."""
    import matplotlib
    from matplotlib import font_manager

    path = chinese_font()
    if path is None:
        return
    font_manager.fontManager.addfont(str(path))
    chinese = font_manager.FontProperties(fname=str(path)).get_name()
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", chinese]
