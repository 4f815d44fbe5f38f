import hashlib
import importlib.metadata

import pytest

from input_pipeline.errors import InputError
from input_pipeline.packages import PackagedFile


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Folder with an installed package "faces" 1.0 that carries faces/net.onnx."""
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "net.onnx").write_bytes(b"weights")
    # Importing it would fail: it must not be imported.
    (tmp_path / "faces" / "__init__.py").write_text("raise ImportError")
    info = tmp_path / "faces-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faces\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("faces") == "1.0"
    return tmp_path


def _file(content=b"weights"):
    sha256 = hashlib.sha256(content).hexdigest()
    return PackagedFile("faces", "1.0", "faces/net.onnx", sha256)


def test_a_file_is_found_without_importing_its_package(package):
    assert _file().find() == package / "faces" / "net.onnx"


def test_a_missing_package_names_the_extra():
    with pytest.raises(InputError, match=r"faces is not installed: pip install 'durian_jax\[eval"):
        _file().find()


def test_another_file_under_its_name_is_refused(package):
    with pytest.raises(InputError, match=r"not the file of version 1.0 .*pip install .* faces==1"):
        _file(b"other").find()
    (package / "faces" / "net.onnx").unlink()
    with pytest.raises(InputError, match=r"not the file of version 1.0 \(sha256 No such file"):
        _file().find()
