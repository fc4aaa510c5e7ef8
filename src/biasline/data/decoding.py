"""From bytes to text: compression and encodings, in blocks."""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from biasline.errors import BiaslineError, shown

_BLOCK = 1 << 22
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# The longer marks first: that of UTF-32 begins as that of UTF-16 does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# First bytes of what people put in the place of a data file.
_NO_TEXT = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"SQLite format 3": "an SQLite database",
    b"%PDF-": "a PDF document",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x89HDF": "an HDF5 file",
}
# Where a tar archive, which is mostly packed with gzip, says that it is one.
_TAR_AT = 257
# Encodings of East Asia, with the codes of their punctuation and most frequent characters.
_USUAL = {
    "gb18030": re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]"),
    "big5": re.compile(rb"[\xa1-\xa3\xa4-\xc6][\x40-\xfe]"),
    "shift_jis": re.compile(rb"[\x81-\x83\x88-\x97][\x40-\xfc]"),
}
_SAMPLE = 1 << 20
# UTF-8 with broken bytes has so many sound characters beyond ASCII for each of them at least.
_SOUND = 4
# What a text may have at most of zero bytes at the even or the odd places; of UTF-16 with Latin letters it is most.
_ZEROS = 0.3


def opened(path: Path, magic: bytes) -> IO[bytes]:
    """The file's bytes, unpacked where its first bytes (`magic`) say that it is packed."""
    if magic.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(path))
    if magic.startswith(_ZSTD):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    return path.open("rb")


def decoded(path: Path, stream: IO[bytes]) -> Iterator[str]:
    """The text in blocks, without a byte-order mark: UTF-8, or UTF-16 and UTF-32 where the mark says so.

    Args:
        path: for messages.
        stream: the file's bytes.

    Raises:
        BiaslineError: for bytes of another encoding, with the place of the first, and for damaged compression.
    """
    raw = _read(path, stream, len(codecs.BOM_UTF32_LE))
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    decoder = codecs.getincrementaldecoder(encoding)()
    read = lines = 0
    mark = "\ufeff"  # taken off the first characters
    first = True
    while True:
        more = _read(path, stream, _BLOCK)
        raw += more
        if first:
            _refuse_no_text(path, raw, encoding)
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw, final=not more)
        except UnicodeDecodeError as error:
            place = read - pending + error.start
            sound = bytes(error.object[: error.start]).decode(encoding, "ignore")
            if encoding == "utf-8":
                unlike, hint = f"byte 0x{error.object[error.start]:02x}", _way_out(path, bytes(error.object))
            else:
                unlike, hint = error.reason, "save it as UTF-8"
            raise BiaslineError(
                f"{shown(path)}: not {encoding.upper()}: {unlike} at position {place} "
                f"(line {lines + sound.count(chr(10)) + 1})",
                hint,
            ) from None
        if text:
            yield text.removeprefix(mark)
            mark = ""
        if not more:
            return
        read += len(raw)
        lines += text.count("\n")
        raw, first = b"", False


def _read(path: Path, stream: IO[bytes], size: int) -> bytes:
    try:
        return stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise BiaslineError(f"{shown(path)}: damaged: {error}", "compress or copy it again") from None


def _refuse_no_text(path: Path, raw: bytes, encoding: str) -> None:
    """`BiaslineError` for files of another kind, and for UTF-16 without its mark, which may pass for UTF-8."""
    kind = next((kind for magic, kind in _NO_TEXT.items() if raw.startswith(magic)), None)
    kind = "a tar archive" if raw[_TAR_AT:].startswith(b"ustar") else kind
    if kind:
        raise BiaslineError(f"{shown(path)}: {kind}", "export it as CSV, JSON Lines or Parquet")
    sample = raw[:_SAMPLE]
    if encoding == "utf-8" and len(sample) > 3:
        zeros = [sample[place::2].count(0) / len(sample[place::2]) for place in (0, 1)]
        if max(zeros) > _ZEROS:
            likely = "utf-16be" if zeros[0] > zeros[1] else "utf-16le"
            raise BiaslineError(
                f"{shown(path)}: not UTF-8: every other byte is zero, as in UTF-16 without a byte-order mark",
                f"convert it, as with `iconv -f {likely} -t utf-8 {path.name}`",
            )


def _way_out(path: Path, raw: bytes) -> str:
    text = raw[:_SAMPLE].decode("utf-8", "replace")
    unknown = text.count("\ufffd")
    if sum(char > "\x7f" for char in text) - unknown > _SOUND * unknown:
        return "nearly all of it is UTF-8: mend that byte, or export the file again"
    likely = likely_encoding(raw[:_SAMPLE])
    if not likely:
        name = path.name
        return f"find its encoding, as with `file {name}`, then convert it: `iconv -f ENCODING -t utf-8 {name}`"
    return f"it is likely {likely}: convert it, as with `iconv -f {likely} -t utf-8 {path.name}`"


def likely_encoding(raw: bytes) -> str:
    """What bytes that are no UTF-8 probably are; empty where nothing speaks for one encoding.

    Western letters with accents are single bytes amid ASCII; a Chinese character is a pair, and characters stand in
    runs.
    """
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", raw)]
    singles = sum(length == 1 for length in runs)
    if runs and singles > len(runs) / 2:
        return "cp1252"
    shares = {encoding: _share_of_usual(raw, encoding, usual) for encoding, usual in _USUAL.items()}
    likely = max(shares, key=lambda encoding: shares[encoding])
    return likely if shares[likely] > 0.5 else ""


def _share_of_usual(raw: bytes, encoding: str, usual: re.Pattern[bytes]) -> float:
    """The share of characters beyond ASCII that are usual in texts of an encoding; 0 where the bytes are none of it."""
    try:
        # The sample may end inside a character.
        text = codecs.getincrementaldecoder(encoding)().decode(raw)
    except UnicodeDecodeError:
        return 0.0
    codes = [char.encode(encoding) for char in text if char > "\x7f"]
    return sum(bool(usual.fullmatch(code)) for code in codes) / len(codes) if codes else 0.0
