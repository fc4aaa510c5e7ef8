"""From bytes to text: compression and encodings, in blocks."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from biasline.errors import BiaslineError, shown

_BLOCK = 1 << 22
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def opened(path: Path, magic: bytes) -> IO[bytes]:
    if magic.startswith(_GZIP):
        return gzip.open(path)
    if magic.startswith(_ZSTD):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    return path.open("rb")


def decoded(path: Path, stream: IO[bytes]) -> Iterator[str]:
    """The text in blocks, without a byte-order mark.

    Errors: `BiaslineError` for bytes that are not UTF-8, with the place of the first, and for damaged compression.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = lines = 0
    mark = "\ufeff"  # taken off the first characters
    while True:
        try:
            raw = stream.read(_BLOCK)
        except (OSError, EOFError, zlib.error) as error:
            raise BiaslineError(f"{shown(path)}: damaged: {error}", "compress or copy it again") from None
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            place = read - pending + error.start
            line = lines + bytes(error.object).count(b"\n", 0, error.start) + 1
            raise BiaslineError(
                f"{shown(path)}: not UTF-8: byte 0x{error.object[error.start]:02x} at position {place} (line {line})",
                f"convert it, as with `iconv -f gb18030 -t utf-8 {path.name}`",
            ) from None
        if not raw:
            return
        if text:
            yield text.removeprefix(mark)
            mark = ""
        read += len(raw)
        lines += raw.count(b"\n")
