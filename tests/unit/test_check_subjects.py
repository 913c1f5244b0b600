# SPDX-License-Identifier: Apache-2.0
"""The check of commit subjects, in git repositories made for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.check_subjects import START, Start, check

GOOD = (
    "agent: refuse VLAN tags",
    "lock, loader: expect files to go in the middle of a call",
    "tests/unit: check commit subjects",
    "docs: " + "x" * 66,
)
BAD = (
    "Refuse VLAN tags",
    "Agent: refuse VLAN tags",
    "agent: refuse VLAN tags.",
    "agent:refuse VLAN tags",
    "agent: ",
    "the agent: refuse VLAN tags",
    "docs: " + "x" * 67,
    'Revert "agent: refuse VLAN tags"',
    "fixup! agent: refuse VLAN tags",
)
OLDEST = 1_000_000_000
"""Seconds since 1970 at which the first commit is written; each later one comes a second later."""


class Repository:
    """A git repository with one commit, whose subject breaks the rule."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seconds = OLDEST
        self._git("init", "--quiet", "--initial-branch=main", str(path))
        self.start = Start(self.commit("Begin."), OLDEST)

    def commit(self, *paragraphs: str) -> str:
        message = [argument for each in paragraphs for argument in ("-m", each)]
        self.git("commit", "--quiet", "--allow-empty", *message)
        return self.git("rev-parse", "HEAD")

    def merge(self, subject: str) -> None:
        """A branch of one commit that follows the rule, merged."""
        self.git("checkout", "--quiet", "-b", "side")
        self.commit("side: go another way")
        self.git("checkout", "--quiet", "main")
        self.git("merge", "--quiet", "--no-ff", "-m", subject, "side")

    def shallow(self, depth: int) -> Path:
        clone = self.path.with_name(f"depth-{depth}")
        self._git("clone", "--quiet", f"--depth={depth}", self.path.as_uri(), str(clone))
        return clone

    def git(self, *arguments: str) -> str:
        return self._git("-C", str(self.path), *arguments)

    def _git(self, *arguments: str) -> str:
        date = f"{self._seconds} +0000"
        self._seconds += arguments[2:3] == ("commit",)
        who = {"NAME": "Nobody", "EMAIL": "nobody@example.org", "DATE": date}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in who.items()}
        command = ("git", *arguments)
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=30
        )
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_what_follows_the_rule_is_accepted(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    for subject in GOOD:
        repository.commit(subject, "Why.\n\nA body ends with a full stop, and May be: Anything.")
    assert check(repository.path, repository.start) == 0
    assert capsys.readouterr() == (f"commit subjects: {len(GOOD)} checked\n", "")


@pytest.mark.parametrize("subject", BAD)
def test_what_breaks_the_rule_is_refused_and_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], subject: str
) -> None:
    commit = repository.commit(subject)
    repository.commit(GOOD[0])
    assert check(repository.path, repository.start) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{commit[:12]} {subject.strip()!r} ")


def test_a_subject_is_all_lines_before_the_first_empty_one(repository: Repository) -> None:
    repository.commit(f"{'docs: ' + 'x' * 40}\n{'x' * 40}")
    assert check(repository.path, repository.start) == 1


def test_older_commits_are_exempt(repository: Repository) -> None:
    assert check(repository.path, repository.start) == 0
    assert check(repository.path, Start("0" * 40, OLDEST - 1)) == 1


def test_a_merge_is_exempt_and_what_it_brings_is_not(repository: Repository) -> None:
    repository.merge("Merge branch 'side'")
    assert check(repository.path, repository.start) == 0
    repository.git("checkout", "--quiet", "side")
    repository.commit(BAD[0])
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "--no-edit", "side")
    assert check(repository.path, repository.start) == 1


def test_a_shallow_clone_is_checked_as_far_as_it_goes(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.commit(BAD[0])
    repository.commit(GOOD[0])
    repository.commit(GOOD[1])
    assert check(repository.shallow(2), repository.start) == 0
    said = capsys.readouterr().out
    assert "is missing" in said
    assert "2 checked" in said
    assert check(repository.shallow(3), repository.start) == 1


def test_a_merge_at_the_edge_of_a_shallow_clone_is_exempt(repository: Repository) -> None:
    repository.merge("Merge branch 'side'")
    assert check(repository.shallow(1), repository.start) == 0


def test_without_the_start_older_commits_are_exempt_by_their_date(repository: Repository) -> None:
    repository.commit(GOOD[0])
    assert check(repository.path, Start("0" * 40, OLDEST)) == 0
    repository.commit(BAD[0])
    assert check(repository.path, Start("0" * 40, OLDEST)) == 1


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside a repository"])
def test_an_unpacked_sdist_passes(
    repository: Repository, capsys: pytest.CaptureFixture[str], tmp_path: Path, inside: bool
) -> None:
    directory = (repository.path if inside else tmp_path) / "sdist"
    directory.mkdir()
    repository.commit(BAD[0])
    assert check(directory, repository.start) == 0
    assert "not checked" in capsys.readouterr().out


def test_a_repository_without_a_commit_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True, timeout=30)
    assert check(tmp_path) == 0
    assert "not checked" in capsys.readouterr().out


def test_the_start_is_a_whole_commit_id() -> None:
    assert len(START.commit) == 40
