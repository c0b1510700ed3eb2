"""The wheel carries all that the product needs and runs from a clean environment."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("hub", "workers", "web", "static")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("clarion_hub-*.whl")
    return built


def test_it_carries_every_file_of_the_packages(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    listing = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    )
    tracked = {
        name for name in listing.stdout.split() if (ROOT / name).is_file() and not name.endswith(".gitkeep")
    }
    assert not tracked - inside
    folders = {name.split("/")[0] for name in inside}
    assert folders == {*PACKAGES, *(folder for folder in folders if folder.endswith(".dist-info"))}


@pytest.mark.parametrize(
    ("folder", "ending"),
    [
        ("static/", ".js"),
        ("static/", ".css"),
        ("web/templates/", ".html"),
        ("hub/adapters/", ".mako"),
        ("hub/", "py.typed"),
    ],
)
def test_it_carries_what_is_not_python(wheel: Path, folder: str, ending: str) -> None:
    assert any(
        name.startswith(folder) and name.endswith(ending) for name in zipfile.ZipFile(wheel).namelist()
    )


def test_it_carries_migrations_and_licences(wheel: Path) -> None:
    inside = zipfile.ZipFile(wheel).namelist()
    assert any("/versions/" in name and name.startswith("hub/adapters/") for name in inside)
    for name in ("LICENSE", "NOTICE"):
        assert any(entry.endswith(f".dist-info/licenses/{name}") for entry in inside)


@pytest.mark.timeout(300)
def test_it_runs_from_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    install = (
        [uv, "pip", "install", "--system-certs", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install"]
    )
    subprocess.run([*install, "-q", "--require-hashes", "-r", str(ROOT / "requirements.lock")], check=True)
    subprocess.run([*install, "-q", "--no-deps", str(wheel)], check=True)

    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    clarion = [str(environment / "bin" / "clarion")]
    shown = subprocess.run(
        [*clarion, "--help"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    for command in (
        "up",
        "node",
        "generate",
        "migrate",
        "apply",
        "send",
        "tail",
        "keys",
        "token",
        "doctor",
        "verify",
    ):
        assert command in shown.stdout
    found = subprocess.run(
        [str(python), "-c", "import hub; print(hub.__file__)"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(environment))
    migrated = subprocess.run(
        [*clarion, "migrate"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert migrated.returncode == 0, migrated.stderr
    assert (tmp_path / "data" / "clarion.db").exists()
