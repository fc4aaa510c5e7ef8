import pytest

from biasline.bases.create import create_pin
from tests.bases.ggufs import small_llama, write_gguf
from tests.serving.packages import four_packages


@pytest.fixture
def packages(workspace):
    return four_packages(workspace)


@pytest.fixture
def llama_pin(tmp_path, monkeypatch):
    """The pin of a small LLaMA in a GGUF file, `small.gguf` in `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BIASLINE_BASES", raising=False)
    file = write_gguf(tmp_path / "small.gguf", small_llama(), quantized=True)
    path = tmp_path / "small.json"
    path.write_text(create_pin(str(file), path).dumps())
    return path
