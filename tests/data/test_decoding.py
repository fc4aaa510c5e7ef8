import codecs
import io
import json
import tarfile

import pytest

from biasline.data import decoding
from biasline.data.decoding import likely_encoding
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

ROWS = [{"instruction": "说一种水果 🍎", "output": "苹果"}, {"instruction": "Wähle\tdas", "output": "Né\u2028e"}]
TEXTS = {"json": json.dumps(ROWS, ensure_ascii=False), "csv": "instruction,output\n说一种,苹果\nÄ,ö\n"}
FRENCH = "instruction,output\nQui a cédé ?,Le général était là\n"


def packed_tar():
    content = "instruction,output\n" + "say,yes\n" * 999
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("rows.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content.encode()))
    return packed.getvalue()


def read(path):
    return read_examples(path, columns_of("instruction"), Source()).frame.select("instruction", "output").rows()


@pytest.mark.parametrize("block", [1, 3, 1 << 22])
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, monkeypatch, encoding, name, block):
    plain, marked = tmp_path / "plain", tmp_path / "marked"
    plain.write_text(TEXTS[name], encoding="utf-8")
    marked.write_bytes(("\ufeff" + TEXTS[name]).encode(encoding))
    monkeypatch.setattr(decoding, "_BLOCK", block)
    assert read(marked) == read(plain)


def test_utf_16_without_its_mark_is_refused_with_the_command(tmp_path):
    for encoding, command in (("utf-16-le", "iconv -f utf-16le"), ("utf-16-be", "iconv -f utf-16be")):
        path = tmp_path / "rows.csv"
        path.write_bytes("instruction,output\nsay,yes\n".encode(encoding))
        with pytest.raises(BiaslineError, match=f"as in UTF-16 without a byte-order mark → .*{command}"):
            read(path)


def test_damaged_utf_16_is_refused_with_the_place(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(codecs.BOM_UTF16_LE + "instruction,output\na,".encode("utf-16-le") + b"\x00\xdc\x00\x00")
    with pytest.raises(BiaslineError, match=r"not UTF-16-LE: illegal encoding at position 44 \(line 2\)"):
        read(path)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_western_bytes_are_told_from_chinese_ones(tmp_path, encoding):
    path = tmp_path / "rows.csv"
    path.write_bytes(FRENCH.encode(encoding))
    with pytest.raises(BiaslineError, match=r"byte 0xe9 at position 26 \(line 2\) → it is likely cp1252: .*-f cp1252"):
        read(path)
    path.write_bytes(TEXTS["csv"].replace("Ä,ö", "用,户").encode("gb18030"))
    with pytest.raises(BiaslineError, match=r"\(line 2\) → it is likely gb18030: .*-f gb18030 -t utf-8 rows\.csv"):
        read(path)


@pytest.mark.parametrize("word", ["cédé", "说一种水果"])
def test_one_broken_byte_in_utf_8_is_no_other_encoding(tmp_path, word):
    path = tmp_path / "rows.csv"
    path.write_bytes(f"instruction,output\n{word},{word * 9}\n".encode() + f"{word},".encode() + b"\xe9,\n")
    with pytest.raises(BiaslineError, match=r"byte 0xe9 at .* \(line 3\) → nearly all of it is UTF-8: mend that byte"):
        read(path)


def test_an_encoding_is_named_where_its_usual_characters_speak_for_it():
    assert likely_encoding("Привет, это обычный текст".encode("cp1251")) == ""
    assert likely_encoding("吃葡萄不吐葡萄皮".encode("gb18030")[:-1]) == "gb18030"
    assert likely_encoding("這間酒店環境和服務態度亦算不錯".encode("big5")) == "big5"
    assert likely_encoding("これは日本語の文章です。東京は大きい。".encode("shift_jis")) == "shift_jis"
    assert likely_encoding("Größe: 3 °C, déjà vu".encode("cp1252")) == "cp1252"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"PK\x03\x04" + bytes(40), "an Excel workbook"),
        (b"BZh9" + bytes(range(90)), "bzip2"),
        (b"%PDF-1.4", "a PDF"),
        (packed_tar(), "a tar archive"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, raw, kind):
    (tmp_path / "rows.csv").write_bytes(raw)
    with pytest.raises(BiaslineError, match=rf"rows\.csv: .*{kind}.* → export it as CSV"):
        read(tmp_path / "rows.csv")
