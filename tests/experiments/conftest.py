"""A folder with code of somebody's own."""

import sys

import pytest

from tests.helpers.own_code import OTHERS, RULE


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with both files, and what was imported from it forgotten afterwards."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "my_rule.py").write_text(RULE)
    (folder / "others.py").write_text(OTHERS)
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
