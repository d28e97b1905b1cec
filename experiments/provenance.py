"""What a run was made with: versions of the packages and the commit of the source."""

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = (
    "allocgym",
    "numpy",
    "pandas",
    "torch",
    "gymnasium",
    "stable-baselines3",
    "skfolio",
)


def software_versions() -> dict[str, str]:
    """Version of Python and of each package that can change a number."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@functools.cache  # the code in memory does not change while the process lives
def git_commit(root: Path | None = None) -> str | None:
    """Commit of the source tree, `-dirty` appended if tracked files differ; None outside git."""
    root = root or Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(  # noqa: S603 - a fixed command, no text of the user's
        command, cwd=root, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None
