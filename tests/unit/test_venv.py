"""Wheels laid out as a virtual environment of the nodes' Python."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from builder import venv
from builder.errors import BuilderError

SHA = "0" * 64


def make_wheel(path: Path, files: dict[str, str]) -> Path:
    """A wheel as an index would serve it, under the name of a blob."""
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            hashed = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={hashed},{len(text)}\n"
        archive.writestr("x-1.0.dist-info/RECORD", record + "x-1.0.dist-info/RECORD,,\n")
    return path


WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
FILES = {
    "x/__init__.py": "def main(): pass\n",
    "x-1.0.data/scripts/tool": "#!python\nprint()\n",
    "x-1.0.data/data/share/x.txt": "x",
    "x-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: x\nVersion: 1.0\n",
    "x-1.0.dist-info/WHEEL": WHEEL,
    "x-1.0.dist-info/entry_points.txt": "[console_scripts]\nx-run = x:main\n",
}


def test_the_tree_is_an_environment_of_the_nodes_python_and_knows_no_place_of_this_machine(tmp_path: Path) -> None:
    blob = make_wheel(tmp_path / SHA, FILES)
    tree = tmp_path / "tree"
    site = venv.install([("x-1.0-py3-none-any.whl", blob)], tree, "/opt/e", "3.13")
    assert site == tree / "opt/e/lib/python3.13/site-packages"
    assert (site / "x/__init__.py").read_text() == FILES["x/__init__.py"]
    assert (tree / "opt/e/share/x.txt").read_text() == "x"
    assert (tree / "opt/e/bin/python").readlink() == Path("/usr/bin/python3.13")
    for script in ("tool", "x-run"):
        path = tree / "opt/e/bin" / script
        assert path.read_text().startswith("#!/opt/e/bin/python\n") and path.stat().st_mode & 0o111
    texts = [path.read_text() for path in tree.rglob("*") if path.is_file()]
    assert not any(str(tmp_path) in text for text in texts)


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    blob = tmp_path / SHA
    blob.write_bytes(b"PK not a zip")
    with pytest.raises(BuilderError, match=r"x-1\.0-py3-none-any\.whl cannot be unpacked"):
        venv.install([("x-1.0-py3-none-any.whl", blob)], tmp_path / "tree", "/opt/e", "3.13")
