"""Builds `.venv` on a machine that has nothing but Python 3.11+ and pip; needs no root.

`environment.py runtime` installs what `make up` needs, `environment.py tests` what `make test` needs on top.
Every package comes from a lock file with hashes. A stamp makes the second run free; it is written only after
everything worked, so an interrupted run is simply done again.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / "stamps"
SCRIPT = """#!{python}
import sys
from hub.__main__ import main
sys.exit(main())
"""


def say(text: str) -> None:
    print(f"environment: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, **extra_env: str) -> bool:
    """Run to the end; True when it worked. The output is the command's own."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **extra_env}
    if "PIP_CERT" in env:  # a certificate store that was given to pip is meant for uv as well
        env.setdefault("SSL_CERT_FILE", env["PIP_CERT"])
    try:
        return (
            subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode == 0
        )
    except OSError as error:
        say(f"{command[0]}: {error}")
        return False


def digest(*paths: Path) -> str:
    content = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(content + sys.version.encode() + str(ROOT).encode()).hexdigest()


def is_done(name: str, value: str) -> bool:
    stamp = STAMPS / name
    return stamp.is_file() and stamp.read_text() == value


def mark_done(name: str, value: str) -> None:
    STAMPS.mkdir(parents=True, exist_ok=True)
    (STAMPS / name).write_text(value)


def make_venv() -> None:
    """An environment that works; one that is broken or was made for another Python is made again."""
    probe = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    if PYTHON.exists() and run(PYTHON, "-c", probe):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if not run(sys.executable, "-m", "venv", VENV):
        # Debian splits ensurepip off into a package; pip itself can serve an environment from outside.
        say("the venv module has no pip of its own here, using the system's")
        shutil.rmtree(VENV, ignore_errors=True)
        if not run(sys.executable, "-m", "venv", "--without-pip", VENV):
            sys.exit(
                "environment: python3 -m venv does not work here; install your system's python3-venv package"
            )


def pip_install(lock: Path) -> bool:
    own_pip = next((VENV / "lib").glob("python3*/site-packages/pip"), None)
    pip: list[str | Path] = (
        [PYTHON, "-m", "pip"] if own_pip else [sys.executable, "-m", "pip", "--python", PYTHON]
    )
    return run(*pip, "install", "--quiet", "--require-hashes", "-r", lock)


def install(lock: Path) -> None:
    """Install a lock file: with uv, which takes seconds, or with pip alone where uv cannot run."""
    uv = VENV / "bin" / "uv"
    has_uv = uv.exists() or pip_install(ROOT / "tools" / "uv.lock")
    # The system's certificates: where a proxy opens TLS, they are the only ones that fit. Compiled once here, the
    # first start of each program is as quick as the others.
    options = ["--quiet", "--system-certs", "--compile-bytecode", "--require-hashes"]
    if has_uv and run(uv, "pip", "install", *options, "--python", PYTHON, "-r", lock):
        return
    say("uv cannot install here, using pip")
    if not pip_install(lock):
        sys.exit(f"environment: the packages of {lock.name} could not be installed; see above")


def link_project() -> None:
    """Make `import hub` and the command `clarion` work from the working tree, without building anything."""
    site_packages = next((VENV / "lib").glob("python3*/site-packages"))
    (site_packages / "clarion.pth").write_text(f"{ROOT}\n")
    command = VENV / "bin" / "clarion"
    command.write_text(SCRIPT.format(python=PYTHON))
    command.chmod(0o755)


def python_part(lock_name: str) -> None:
    lock = ROOT / lock_name
    value = digest(lock)
    if PYTHON.exists() and is_done(lock_name, value):
        return
    started = time.monotonic()
    say(f"installing the packages of {lock_name} into .venv")
    make_venv()
    install(lock)
    link_project()
    mark_done(lock_name, value)
    say(f"done in {time.monotonic() - started:.0f} s")


def node_part() -> None:
    """The JavaScript SDK that the tests drive, by the npm that is there or one from a wheel."""
    folder = ROOT / "tests" / "e2e" / "js"
    value = digest(folder / "package-lock.json")
    if is_done("node", value) and (folder / "node_modules").is_dir():
        return
    bin_folder = VENV / "bin"
    if not (shutil.which("node") and shutil.which("npm")):
        say("no Node here, installing one into .venv")
        install(ROOT / "tools" / "node.lock")
    path = f"{os.environ['PATH']}{os.pathsep}{bin_folder}"
    npm = shutil.which("npm", path=path) or "npm"
    arguments = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", folder)
    if run(npm, *arguments, PATH=path) or run(
        npm, *arguments, PATH=path
    ):  # one repeat for a hiccup of the network
        mark_done("node", value)
    else:
        say("npm did not work: the tests of the JavaScript SDK will be skipped (and fail under CI=true)")


def browser_part() -> None:
    run(PYTHON, "-m", "tests.support.browser", "--install")


def main() -> None:
    if sys.version_info < (3, 11):
        version = sys.version.split()[0]
        sys.exit(
            f"environment: Python 3.11 or newer is needed, this is {version}; try make PYTHON=python3.12"
        )
    goal = sys.argv[1] if len(sys.argv) > 1 else "runtime"
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once take turns
        if goal == "runtime" and is_done("requirements-dev.lock", digest(ROOT / "requirements-dev.lock")):
            return  # the tests' environment contains it all
        python_part("requirements.lock" if goal == "runtime" else "requirements-dev.lock")
        if goal == "tests":
            node_part()
            browser_part()


if __name__ == "__main__":
    main()
