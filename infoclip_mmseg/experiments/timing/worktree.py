"""Another commit of this clone, checked out beside it for the time of a comparison."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infoclip_mmseg.experiments.timing.settings import BenchmarkError


def git(root: Path, *arguments: str) -> str | None:
    """Output of a git command in a folder; None where it fails or there is no git."""
    try:
        done = subprocess.run(
            ['git', '-C', str(root), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe_commit(root: Path) -> str:
    """Short id of the commit of a clone, with '+changes' where files differ from it."""
    commit = git(root, 'rev-parse', '--short=10', 'HEAD')
    if commit is None:
        return 'unknown (no git clone)'
    return f'{commit}+changes' if changed_files(root) else commit


def changed_files(root: Path) -> list[str]:
    """Tracked files of a clone that differ from its commit."""
    lines = (git(root, 'status', '--porcelain', '--untracked-files=no') or '').splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.strip()]


def find_commit(root: Path, revision: str) -> str:
    """Full id of a revision.

    Raises:
        BenchmarkError: It is not known, or the clone has changes that no commit holds.
    """
    if git(root, 'rev-parse', '--git-dir') is None:
        raise BenchmarkError(f'--compare-commit needs a git clone, and {root} is none')
    commit = git(root, 'rev-parse', '--verify', '--quiet', f'{revision}^{{commit}}')
    if commit is None:
        raise BenchmarkError(
            f'--compare-commit: {revision!r} is no commit of {root}; `git log --oneline` lists '
            'commits, `git fetch` gets those of the remote'
        )
    changed = changed_files(root)
    if changed:
        raise BenchmarkError(
            f'--compare-commit compares two commits, but {len(changed)} files differ from the '
            f'last one ({", ".join(changed[:3])}{", ..." if len(changed) > 3 else ""}); commit '
            'them, or put them aside with `git stash`'
        )
    return commit


@contextmanager
def worktree(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder, and remove it in the end.

    Args:
        root: The clone.
        commit: What :func:`find_commit` gave.

    Raises:
        BenchmarkError: git can not check it out.
    """
    with tempfile.TemporaryDirectory(prefix='benchmark-') as name:
        folder = Path(name).resolve() / commit[:10]
        if git(root, 'worktree', 'add', '--detach', str(folder), commit) is None:
            raise BenchmarkError(
                f'git can not check {commit[:10]} out into {folder}: try `git worktree prune`'
            )
        try:
            yield folder
        finally:
            git(root, 'worktree', 'remove', '--force', str(folder))
