from __future__ import annotations

import shutil
import subprocess

import pytest

from infoclip_mmseg.experiments.timing.settings import BenchmarkError
from infoclip_mmseg.experiments.timing.worktree import describe_commit, find_commit, git, worktree

pytestmark = pytest.mark.skipif(shutil.which('git') is None, reason='needs git')


def commit(folder, text: str) -> None:
    (folder / 'file').write_text(text)
    run = ['git', '-C', str(folder), '-c', 'user.name=t', '-c', 'user.email=t@t']
    for arguments in (['add', '.'], ['commit', '-qm', text]):
        subprocess.run([*run, *arguments], check=True)


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / 'clone'
    folder.mkdir()
    subprocess.run(['git', 'init', '-q', str(folder)], check=True)
    commit(folder, 'one')
    commit(folder, 'two')
    return folder


def test_another_commit_is_there_for_a_while(clone):
    first = find_commit(clone, 'HEAD~1')
    assert len(first) == 40
    with worktree(clone, first) as folder:
        assert (folder / 'file').read_text() == 'one'
        assert describe_commit(folder) == first[:10]
    assert not folder.exists()
    assert git(clone, 'worktree', 'list').count('\n') == 0


def test_unknown_revisions_changes_and_plain_folders_are_refused(clone, tmp_path):
    with pytest.raises(BenchmarkError, match="'nowhere' is no commit"):
        find_commit(clone, 'nowhere')
    (clone / 'new').write_text('not tracked')
    assert find_commit(clone, 'HEAD')
    (clone / 'file').write_text('three')
    with pytest.raises(BenchmarkError, match=r'1 files differ from the last one \(file\)'):
        find_commit(clone, 'HEAD~1')
    assert describe_commit(clone).endswith('+changes')
    (tmp_path / 'plain').mkdir()
    with pytest.raises(BenchmarkError, match='needs a git clone'):
        find_commit(tmp_path / 'plain', 'HEAD')
