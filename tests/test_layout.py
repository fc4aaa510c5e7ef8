import pytest

from biasline.errors import BiaslineError
from biasline.layout import TaskPlace, home, replacing, write_text


def test_home_is_dvc_root_where_dvc_runs_us(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert home() == tmp_path
    assert TaskPlace("a").ledger == tmp_path / "data" / "a" / "promotions.jsonl"


def test_home_is_the_folder_above_with_a_project(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").touch()
    inside = tmp_path / "data" / "x"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert home() == tmp_path


def test_home_outside_a_project_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BiaslineError, match="not inside a Biasline project"):
        home()


def test_replacing_leaves_the_old_when_the_new_fails(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), replacing(target) as draft:
        draft.mkdir()
        (draft / "half").touch()
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replacing_takes_the_place_of_a_folder(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with replacing(target) as draft:
        draft.mkdir()
        (draft / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]


def test_text_has_unix_line_ends(tmp_path):
    write_text(tmp_path / "a" / "b.md", "ä\nb\n")
    assert (tmp_path / "a" / "b.md").read_bytes() == "ä\nb\n".encode()


def test_an_unwritable_place_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BiaslineError, match="cannot be written"):
        write_text(tmp_path / "file" / "below", "x")
