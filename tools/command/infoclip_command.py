"""The command `infoclip`: every tool of this repository by name, from any folder.

Usage: infoclip COMMAND [options]; infoclip COMMAND --help tells the options of one.

It is a module beside the package, so that its help does not wait for PyTorch.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

COMMANDS = {
    'segment': 'infer.py',
    'train': 'train.py',
    'test': 'test.py',
    'demo': 'demo.py',
    'serve': 'serve.py',
    'export': 'export.py',
    'prepare': 'prepare_data.py',
    'prepare import': 'import_annotations.py',
    'benchmark': 'benchmark.py',
    'quickstart': 'quickstart.py',
    'visualize': 'visualize.py',
    'encode': 'encode_vocabulary.py',
    'clips': 'list_clips.py',
    'interpolate': 'interpolate.py',
    'ablation': 'ablation.py',
    'pretrain': 'pretrain_clip.py',
    'export-world': 'export_world.py',
    'export-clip': 'export_clip.py',
    'convert catseg': 'convert_catseg.py',
    'convert maftp': 'convert_maftp.py',
}


def tools_folder() -> Path:
    """The folder of the tools: of an installed package, or of a checkout."""
    spec = find_spec('infoclip_mmseg')
    if spec is None or spec.origin is None:
        raise SystemExit('infoclip: error: the package infoclip_mmseg is not installed')
    package = Path(spec.origin).parent
    installed = package / '.mim' / 'tools'
    return installed if installed.is_dir() else package.parent / 'tools'


def summary(tool: Path) -> str:
    """First line of a program's docstring."""
    text = ast.get_docstring(ast.parse(tool.read_text(encoding='utf-8'))) or ''
    return text.partition('\n')[0]


def overview(tools: Path) -> str:
    """What `infoclip --help` says."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f'  {name:{width}}{summary(tools / file)}' for name, file in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: infoclip COMMAND [options]',
            '',
            *lines,
            '',
            'infoclip COMMAND --help: its options',
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool of a command with the options behind it.

    Returns:
        0, or 2 for an unknown command; a tool that ends by itself gives its own status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    tools = tools_folder()
    if not words or words[0] in ('-h', '--help'):
        sys.stdout.write(overview(tools) + '\n')
        return 0
    if words[0] in ('-V', '--version'):
        sys.stdout.write(f'infoclip_mmseg {version("infoclip_mmseg")}\n')
        return 0
    count = next((n for n in (2, 1) if ' '.join(words[:n]) in COMMANDS), 0)
    if not count:
        close = get_close_matches(' '.join(words[:2]), COMMANDS, n=2)
        hint = f'did you mean {" or ".join(close)}? ' if close else ''
        sys.stderr.write(
            f'infoclip: error: no command {words[0]!r}; {hint}infoclip --help lists all\n'
        )
        return 2
    name, options = ' '.join(words[:count]), words[count:]
    run_tool(tools / COMMANDS[name], [f'infoclip {name}', *options])
    return 0


def run_tool(tool: Path, argv: Sequence[str]) -> None:
    """Run a program as `python TOOL` does, under the name that ``argv`` begins with."""
    module = ModuleType('__main__')
    module.__file__ = str(tool)
    sys.modules['__main__'], sys.argv = module, list(argv)
    sys.path.insert(0, str(tool.parent))
    exec(compile(tool.read_text(encoding='utf-8'), tool, 'exec'), module.__dict__)


if __name__ == '__main__':
    sys.exit(main())
