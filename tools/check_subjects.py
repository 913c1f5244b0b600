# SPDX-License-Identifier: Apache-2.0
"""Checks the subjects of commits: ``part: what it does``, at most 72 characters, no full stop at the end.

``python tools/check_subjects.py`` looks at every commit of HEAD that is not in START, and at no merge. Where START is
missing (a shallow clone), it looks at what is there and was written after START. Without a repository (an unpacked
sdist) it passes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 72
PART = r"[a-z0-9_.][a-z0-9_./-]*"
SUBJECT = re.compile(rf"{PART}(, {PART})*: \S.*")


class Start(NamedTuple):
    """The newest commit that need not follow the rule, and when it was written (seconds since 1970)."""

    commit: str
    authored: int


START = Start("4631a97bfd848c5d223b8b5411146e398906daae", 1795654439)


class Commit(NamedTuple):
    """What is checked of a commit, and what may exempt it."""

    commit: str
    parents: int
    authored: int
    subject: str


def problems(subject: str) -> list[str]:
    """What is wrong with a subject; empty if nothing is."""
    found: list[str] = []
    if not SUBJECT.fullmatch(subject):
        found.append("is not `part: what it does` with the part in lower case")
    if len(subject) > LONGEST:
        found.append(f"has {len(subject)} characters, more than {LONGEST}")
    if subject.endswith("."):
        found.append("ends with a full stop")
    return found


def check(root: Path, start: Start = START) -> int:
    """Check the repository at ``root``; zero if every subject follows the rule."""
    # Not by git, which would find a repository further up that is not this project's.
    if not (root / ".git").exists():
        print("commit subjects: not checked, since this is not a git repository")
        return 0
    if not _has(root, "HEAD"):
        print("commit subjects: not checked, since git finds no commit here")
        return 0
    if _has(root, start.commit):
        commits = _commits(root, "HEAD", f"^{start.commit}")
    else:
        print(
            f"commit subjects: {start.commit[:12]} is missing (a shallow clone?); checking the newer ones that are here"
        )
        commits = [each for each in _commits(root, "HEAD") if each.authored > start.authored]
    commits = [each for each in commits if each.parents < 2]
    wrong = [(each, problem) for each in commits for problem in problems(each.subject)]
    for each, problem in wrong:
        print(f"{each.commit[:12]} {each.subject!r} {problem}", file=sys.stderr)
    print(f"commit subjects: {len(commits)} checked")
    return int(bool(wrong))


def _has(root: Path, name: str) -> bool:
    return _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").returncode == 0


def _commits(root: Path, *revisions: str) -> list[Commit]:
    # Raw headers, because at the edge of a shallow clone git itself shows merges without parents.
    done = _git(root, "rev-list", "--header", *revisions)
    done.check_returncode()
    return [_parse(raw) for raw in done.stdout.split("\0") if raw.strip()]


def _parse(raw: str) -> Commit:
    head, _, message = raw.partition("\n\n")
    commit, *headers = head.splitlines()
    (author,) = (line for line in headers if line.startswith("author "))
    first, _, _ = message.partition("\n    \n")
    return Commit(
        commit=commit,
        parents=sum(line.startswith("parent ") for line in headers),
        authored=int(author.split()[-2]),
        subject=" ".join(first.split()),
    )


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The clone may be another user's than the one who runs the linters as root.
    command = ("git", "-c", f"safe.directory={root}", "-C", str(root), *arguments)
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


if __name__ == "__main__":
    sys.exit(check(ROOT))
