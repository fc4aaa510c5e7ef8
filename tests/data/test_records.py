import polars as pl
import pytest

from biasline.data.records import read_records
from biasline.errors import BiaslineError

ROWS = [{"text": "a", "label": 1}, {"text": None, "label": 2}]
WRITERS = {
    "Parquet": pl.DataFrame.write_parquet,
    "Arrow": pl.DataFrame.write_ipc,
    "stream": pl.DataFrame.write_ipc_stream,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_columnar_files_are_known_by_their_content(tmp_path, kind):
    path = tmp_path / "rows.csv"
    WRITERS[kind](pl.DataFrame(ROWS), path)
    assert list(read_records(path, lambda *_: False)) == ROWS


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_columnar_file_is_refused(tmp_path, kind):
    path = tmp_path / "rows"
    WRITERS[kind](pl.DataFrame(ROWS), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BiaslineError, match=f"rows: damaged {'Arrow' if kind == 'stream' else kind}: .* → export it"):
        list(read_records(path, lambda *_: False))
