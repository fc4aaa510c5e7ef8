"""A page of Markdown as HTML that needs nothing beside it, and as PDF."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.errors import BiaslineError, first_line
from biasline.figures.canvas import chinese_font
from biasline.registry.signing import AUDIT

if TYPE_CHECKING:
    from markdown_it.token import Token

PNG = b"\x89PNG\r\n\x1a\n"
_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans SC", sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: .25rem .5rem; text-align: left; vertical-align: top; }
th { background: #f3f3f3; }
code, pre { font-family: ui-monospace, monospace; font-size: 13px; overflow-wrap: anywhere; }
pre { background: #f6f6f6; padding: .7rem; overflow-x: auto; }
img { max-width: 100%; }
"""
# Millimetres of a landscape page, in which a table has this much, and a column so much at least.
_WIDTH, _NARROWEST, _SIZES = 277.0, 13.0, {"h1": 18, "h2": 14, "h3": 12, "h4": 11}
# Cells of more letters would make a row higher than a page.
_LONGEST_CELL = 1_200
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


def lowered(text: str, by: int) -> str:
    """Markdown as a part of another page: without its title, and with headings so many levels further down."""
    lines, fence = [], ""
    for line in text.splitlines():
        if found := _FENCE.match(line):
            fence = "" if fence and found[1].startswith(fence) else fence or found[1]
        if not fence and not found and line.startswith("# "):
            continue
        if not fence and not found and re.match(r"#{1,6} ", line):
            line = "#" * min(6 - line.index(" "), by) + line
        lines.append(line)
    return "\n".join(lines).strip()


def as_html(title: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """Markdown as one page: HTML in it is shown as it is written, and pictures are part of the page.

    Args:
        title: of the page.
        text: Markdown.
        pictures: those that it shows, by the paths that it names them by; others are not loaded.
    """
    parser = _parser()
    tokens = parser.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                content = pictures.get(str(child.attrGet("src")))
                inside = "" if content is None else f"data:image/png;base64,{base64.b64encode(content).decode()}"
                child.attrSet("src", inside)
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def write_pdf(path: Path, title: str, text: str, pictures: Mapping[str, bytes], made: datetime) -> None:
    """Markdown as PDF; bold and links become plain text.

    Args:
        path: the file.
        title: of the document.
        text: Markdown.
        pictures: as of `as_html`.
        made: what the file says of when it was made, so that the same text gives the same bytes.
    """
    pdf = _new_pdf(title, made)
    tokens = _parser().parse(text)
    place, depth = 0, 0
    while place < len(tokens):
        token = tokens[place]
        depth += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        if token.type == "table_open":
            end = next(at for at in range(place, len(tokens)) if tokens[at].type == "table_close")
            _table(pdf, tokens[place:end])
            place = end
        elif token.type in ("fence", "code_block"):
            pdf.set_font("mono", size=8)
            _paragraph(pdf, token.content.rstrip("\n"), 4.0)
        elif token.type == "inline":
            opened = tokens[place - 1]
            heading = opened.type == "heading_open"
            pdf.set_font("text", style="B" if heading else "", size=_SIZES.get(opened.tag, 9))
            if heading:
                pdf.ln(2)
            words = _words(token)
            if words:
                _paragraph(pdf, "  " * (depth - 1) + "• " * bool(depth) + words, 8.0 if heading else 4.6)
            for child in token.children or ():
                if child.type == "image" and (content := pictures.get(str(child.attrGet("src")))) is not None:
                    pdf.image(BytesIO(content), w=150)
        place += 1
    pdf.output(str(path))


def check_libraries(pdf: bool) -> None:
    """Refuse early where a library of these forms is not installed."""
    _parser()
    if pdf:
        _fpdf()


def _parser() -> Any:
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise BiaslineError(f"a dossier wants a library: {first_line(error)}", AUDIT) from None
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _fpdf() -> Any:
    try:
        import fpdf
    except ImportError as error:
        raise BiaslineError(f"--pdf wants a library: {first_line(error)}", AUDIT) from None
    return fpdf


def _new_pdf(title: str, made: datetime) -> Any:
    import logging

    import matplotlib

    fpdf = _fpdf()
    for name in ("fpdf", "fontTools"):  # letters that no font has, and tables of fonts: told on standard error
        logging.getLogger(name).setLevel(logging.ERROR)
    pdf = fpdf.FPDF(orientation="landscape", format="A4")
    pdf.set_creation_date(made)
    pdf.set_title(title)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pdf.add_font("text", fname=fonts / "DejaVuSans.ttf")
    pdf.add_font("text", style="B", fname=fonts / "DejaVuSans-Bold.ttf")
    pdf.add_font("mono", fname=fonts / "DejaVuSansMono.ttf")
    chinese = chinese_font()
    if chinese is not None:
        pdf.add_font("chinese", fname=chinese)
        pdf.set_fallback_fonts(["chinese"], exact_match=False)
    pdf.set_auto_page_break(True, margin=12)
    pdf.set_margins(10, 12)
    pdf.add_page()
    return pdf


def _paragraph(pdf: Any, text: str, height: float) -> None:
    pdf.multi_cell(0, height, text, align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(1)


def _words(token: "Token") -> str:
    """The text of an inline token, without its markup."""
    kinds = {"softbreak": " ", "hardbreak": "\n"}
    parts = [kinds.get(child.type, "" if child.type == "image" else child.content) for child in token.children or ()]
    return "".join(parts)


def _table(pdf: Any, tokens: "Sequence[Token]") -> None:
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_words(token))
    columns = len(rows[0])
    longest = [max(len(row[at]) for row in rows) for at in range(columns)]
    pdf.set_font("text", size=7)
    if columns * _NARROWEST > _WIDTH or max(longest) > _LONGEST_CELL:
        for row in filter(any, rows):
            _paragraph(pdf, " | ".join(row), 3.6)
        return
    # In proportion to what they hold, within limits: one long cell must not make the others unreadable.
    shares = [min(max(length, 4), 80) for length in longest]
    spare = _WIDTH - columns * _NARROWEST
    widths = [_NARROWEST + spare * share / sum(shares) for share in shares]
    with_heading = any(rows[0])
    told = rows if with_heading else rows[1:]
    if told:
        look = {"text_align": "LEFT", "v_align": "TOP", "line_height": 3.6, "padding": 0.6}
        with pdf.table(told, col_widths=widths, first_row_as_headings=with_heading, **look):
            pass
    pdf.ln(2)
