"""backends/README.md's tables are what the code and the reports say; the report is of what is looked at."""

import json

import pytest

from tests.gpu_check import __main__ as looking
from tests.helpers import ROOT

for library in ("torch", "jax"):
    pytest.importorskip(library)

from tests.gpu_check import page  # noqa: E402


def test_the_page_is_as_the_code_and_the_reports_are():
    text = (ROOT / "backends" / "README.md").read_text("utf-8")
    assert page.rewritten(text) == text, "make generated"


def test_kernels_of_the_table():
    every = page.native()
    assert page.kernels().count("own") == sum(
        getattr(of, name) is not getattr(page.PORTABLE, name) for of in every.values() for name in page.NAMES
    )
    assert "| conv_apply | own | own | own | own | own | own |" in page.kernels()


def test_what_ran_on_a_gpu_is_told(tmp_path, monkeypatch):
    """And what failed there, and what is wrong without one."""
    run = tmp_path / "H100"
    run.mkdir()
    asked = {"what": "outcome", "form": "torch tf32", "question": "torch tf32, native, compiled, level 0, 1"}
    lines = [asked | {"state": state} for state in ("pass", "pass", "fail")] + [{"what": "ends", "form": "torch tf32"}]
    (run / "conformance.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(page, "RUNS", tmp_path)
    (line,) = [one for one in page.proved().splitlines() if one.startswith("| torch | native | float32 | tf32 |")]
    assert "| H100: 3 checks, 1 fail |" in line
    (line,) = [one for one in page.proved().splitlines() if one.startswith("| torch | portable | float32 | tf32 |")]
    assert "| no |" in line
    by = {"torch": {"by": {"native/float32/ieee": [3, 1]}}, "cupy": {"by": {"float64": [2, 0]}}}
    assert page.counted(by, "torch", "native", "float32", "ieee") == "3 combinations, 1 wrong"
    assert page.counted(by, "torch", "native", "float64", "ieee") == "no"
    assert page.counted(by, "cupy", "native", "float64", "ieee") == "2 compilations; steps on the stand-in"


def test_results_go_on_where_they_were(tmp_path, monkeypatch, capsys):
    """Nothing is looked at twice, what is wrong is said and counted, and the exit code tells."""
    looked = []

    class Part:
        @staticmethod
        def tasks():
            return {
                f"backprop/FC/{k}/float32/ieee/sgd": lambda k=k: looked.append(k) or ["it waits"] * (k == "native")
                for k in ("portable", "native")
            }

        @staticmethod
        def versions():
            return {"torch": "2"}

    monkeypatch.setattr(looking, "PARTS", {"torch": "torch_faked"})
    monkeypatch.setattr(looking, "module", lambda part: Part)
    monkeypatch.setattr(looking, "REPORT", tmp_path / "report.json")
    for _ in range(2):
        assert looking.main(["--results", str(tmp_path)]) == 1
    assert sorted(looked) == ["native", "portable"]
    found = json.loads((tmp_path / "report.json").read_text())["parts"]["torch"]
    assert (found["looked_at"], found["of"]) == (2, 2)
    assert found["wrong"] == {"backprop/FC/native/float32/ieee/sgd": ["it waits"]}
    assert found["by"] == {"native/float32/ieee": [1, 1], "portable/float32/ieee": [1, 0]}
    assert "backprop/FC/native/float32/ieee/sgd: it waits" in capsys.readouterr().out
    assert looking.main(["--results", str(tmp_path), "--fresh", "--seconds", "0"]) == 0


def test_the_committed_report_is_of_what_is_looked_at():
    report = json.loads(looking.REPORT.read_text("utf-8"))["parts"]
    assert report.keys() <= looking.PARTS.keys() and {"torch", "jax"} <= report.keys()
    for part in report.values():
        assert part["wrong"] == {}
        assert part["looked_at"] == sum(n for n, _ in part["by"].values()) <= part["of"]
