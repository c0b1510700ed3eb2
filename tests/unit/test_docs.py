"""What the docs name exists: files, make targets, settings, promises."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest

from hub.config import Settings
from hub.config_sources import is_secret, variable

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = "hub|workers|web|static|tests|docs|tools|benchmarks|\\.ci"
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)\s#]+)[^)]*\)")
PATH = re.compile(rf"(?:(?:{FOLDERS})/[\w./<>*-]*|[A-Za-z.-]+\.(?:md|toml|lock)|Makefile|LICENSE|NOTICE)")
TARGET = re.compile(r"\bmake ([a-z][a-z-]+)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def names(page: Path) -> list[str]:
    return [str(page.relative_to(ROOT))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_exists(page: Path) -> None:
    text = page.read_text()
    prose = FENCE.sub("", text)
    named = [span for span in CODE.findall(prose) if PATH.fullmatch(span) and not set(span) & set("<>*")]
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [link for link in LINK.findall(prose) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    spans = [*CODE.findall(text), *(line for block in FENCE.findall(text) for line in block.splitlines())]
    assert {target for span in spans for target in TARGET.findall(span)} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_exists(page: Path) -> None:
    known = {variable(name) for name in Settings.model_fields}
    known |= {f"{variable(name)}_FILE" for name, field in Settings.model_fields.items() if is_secret(field)}
    known |= {"CLARION_TEST_CHROMIUM"}  # of the test bench
    assert set(re.findall(r"\bCLARION_[A-Z_]*[A-Z]", page.read_text())) <= known


def test_the_page_of_settings_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "tools" / "settings_page.py"))["render"]()
    assert (ROOT / "docs" / "settings.md").read_text() == page, "run tools/settings_page.py"


def test_the_type_of_the_page_on_timing_can_be_defined() -> None:
    import msgspec

    from hub.model.checks import type_errors
    from hub.model.types import TypeDefinition

    [block] = FENCE.findall((ROOT / "docs" / "timing.md").read_text())
    text = block.removeprefix("```json").removesuffix("```")
    assert type_errors(msgspec.json.decode(text, type=TypeDefinition)) == []


def test_every_dependency_says_what_it_is_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    page = (ROOT / "docs" / "dependencies.md").read_text()
    for requirement in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        name = re.split(r"[<>=;\[ ]", requirement)[0]
        assert re.search(rf"\b{re.escape(name)}\b", page), name


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    listed = set(LINK.findall((folder / "README.md").read_text()))
    assert {path.name for path in folder.glob("[0-9]*.md")} == listed


def test_all_promises_are_kept_in_one_table() -> None:
    found = re.findall(r"^\| ([RI]\d+) \|", (ROOT / "docs" / "requirements.md").read_text(), re.MULTILINE)
    assert found == [*(f"R{number}" for number in range(1, 38)), *(f"I{number}" for number in range(1, 17))]


def test_make_help_lists_every_task() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("up", "test", "check", "bench", "help", "requirements", "lock", "clean"):
        assert f"make {target} " in shown
