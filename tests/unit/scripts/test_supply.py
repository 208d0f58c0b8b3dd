"""The list of packages and their audit: what is asked, what is ignored, and that no answer is no good news."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from scripts import supply

TODAY = date(2026, 11, 28)
FOUND = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1", "GHSA-aaaa"], "fix_versions": ["2.0"]}
REPORT = {
    "dependencies": [{"name": "alpha", "version": "1.0", "vulns": [FOUND]}, {"name": "beta", "version": "1"}]
}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the installed tools."""
    monkeypatch.setattr(supply, "TOOLS", tmp_path)
    return tmp_path


def pip_audit(tools: Path, report: object, error: str = "") -> None:
    """A program that writes `report` where it is told to, or nothing but an error."""
    write = f"open(out, 'w').write({json.dumps(report)!r})" if report else f"sys.exit({error!r})"
    program = tools / "pip-audit"
    program.write_text(
        "#!/usr/bin/env python3\nimport sys\n"
        f"out = next(word for word in sys.argv if word.startswith('--output='))[9:]\n{write}\n"
    )
    program.chmod(0o755)


def found(ignored: str = "", report: Any = REPORT) -> list[str]:
    lock = supply.ROOT / "gateway/requirements.lock"
    entries = supply.read_ignored(ignored)
    return list(supply.vulnerable(lock, report["dependencies"], entries, TODAY))


def test_a_vulnerable_package_is_told() -> None:
    """With lock, version, all names and the version that mends it."""
    (line,) = found()
    for word in ("gateway/requirements.lock", "alpha 1.0", "PYSEC-2026-1", "CVE-2026-1", "GHSA-aaaa", "2.0"):
        assert word in line


@pytest.mark.parametrize("name", ["PYSEC-2026-1", "CVE-2026-1"])
def test_an_ignored_one_counts_again_after_its_day(name: str) -> None:
    """Under any of its names; until then it is passed over."""
    assert found(f"# why\n\n{name} 2026-11-28 not reachable: we parse no TIFF\n") == []
    assert len(found(f"{name} 2026-11-27 not reachable: we parse no TIFF")) == 1
    assert len(found("CVE-2026-2 2027-01-01 another one")) == 1


@pytest.mark.parametrize(
    "line", ["CVE-2026-1", "CVE-2026-1 soon x", "CVE-2026-1 2026-13-01 x", "CVE-2026-1 2026-12-01"]
)
def test_a_wrong_line_is_named(line: str) -> None:
    """An entry needs an id, a day and a reason."""
    with pytest.raises(supply.Failure, match=r"tests/supply/ignored:2"):
        supply.read_ignored(f"# first\n{line}\n")


def test_the_shipped_list_can_be_read() -> None:
    supply.read_ignored(supply.IGNORED.read_text())


def test_no_answer_is_no_good_news(tools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3, in capitals, with the tool's own reason."""
    pip_audit(tools, None, "ERROR: Could not connect")
    assert supply.main(["audit"]) == supply.UNKNOWN
    told = capsys.readouterr()
    assert "NOTHING IS KNOWN" in told.err
    assert "Could not connect" in told.err
    assert "nothing known against" not in told.out


def test_an_audit_asks_about_every_lock(tools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says of how many nothing is known."""
    pip_audit(tools, {"dependencies": []})
    assert supply.main(["audit"]) == 0
    count = len(list(supply.pip_locks()))
    assert f"{count} locks" in capsys.readouterr().out
    pip_audit(tools, REPORT)
    assert supply.main(["audit"]) == supply.VULNERABLE


def test_a_package_that_is_passed_over_is_no_good_news(
    tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a mirror does that has no vulnerabilities to tell: exit code 3, with the package's name."""
    skipped = {"name": "gamma", "skip_reason": "Dependency not found on PyPI"}
    pip_audit(tools, {"dependencies": [{"name": "beta", "version": "1", "vulns": []}, skipped]})
    assert supply.main(["audit"]) == supply.UNKNOWN
    told = capsys.readouterr().out
    assert "NOTHING IS KNOWN of 1 packages" in told
    assert "gamma" in told
    assert "nothing known against" not in told


def test_every_lock_for_pip_is_found() -> None:
    """Those of both packages, the check job, the tests, the tools and the workers."""
    names = {str(path.relative_to(supply.ROOT)) for path in supply.pip_locks()}
    assert {*supply.SETS.values(), "tests/supply/requirements.lock", "gateway/compile.lock"} <= names
    assert any(name.startswith("docker/locks/vllm-") for name in names)


def test_a_worker_has_its_lock_and_its_pins() -> None:
    """vLLM and torch are in no lock."""
    sets = supply.worker_sets()
    assert len(sets) == len(list(supply.ROOT.glob("docker/*/card.yaml")))
    for requirements in sets.values():
        assert "\nvllm" in requirements
        assert "\ntorch==" in requirements
        assert "--extra-index-url" not in requirements
