"""README.md and PORT.md: their examples run, their commands parse, and what they name exists."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest
from toy import ROOT

from opt import VERSION
from scripts import tables
from utils import read_sealed

README, PORT = ((ROOT / name).read_text(encoding='utf-8') for name in ('README.md', 'PORT.md'))
EXAMPLES = re.findall('```python\n(.*?)```', README + PORT, re.S)
PRINTED = re.findall('```bash\n([^`]*)```\n```\n(.*?)```', README, re.S)  # commands, and what they print
BASH = '\n'.join(re.findall('```bash\n(.*?)```', README, re.S))
SPANS = re.findall('`([^`\n]+)`', re.sub('```.*?```', '', README, flags=re.S))           # what is code inside a line
LINES = [line for text in (BASH, *SPANS) for line in re.split('\n| && ', text)]
COMMANDS = [line for line in LINES if re.match(r'(\S*python|torchrun) .*\w\.py\b', line)]
SCRIPTS = ('train', 'analysis', 'pretrain', 'generate', 'zero_shot', 'convert', 'model.download', 'scripts.bench',
           'scripts.tables', 'scripts.figure2')


def options_of(name, capsys):
    """The options of a script, from its --help."""
    with pytest.raises(SystemExit):
        importlib.import_module(name).parse_args(['--help'])
    return set(re.findall(r'--\w+', capsys.readouterr().out))


@pytest.mark.parametrize('number', range(len(EXAMPLES)))
def test_an_example_runs_and_prints_what_its_last_comment_says(number, tmp_path, monkeypatch, capsys):
    for name in ('data', 'model'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)                                        # where it may write log/ and save/
    exec(EXAMPLES[number], {})
    printed = capsys.readouterr().out.strip().split('\n')[-1]
    assert EXAMPLES[number].strip().endswith(printed)


def printed(script, *more):
    """What the README's first command with this script prints, as the README has it and as it is now: lines."""
    [(commands, expected)] = [pair for pair in PRINTED if script in pair[0]]
    command = next(part for line in commands.split('\n') for part in line.split(' && ') if script in part)
    argv = shlex.split(command)
    run = subprocess.run([sys.executable, *argv[1:], *more], cwd=ROOT, capture_output=True, text=True, check=True)
    return expected.strip().split('\n'), run.stdout.strip().split('\n')


@pytest.mark.skipif(VERSION < (2, 4), reason='with the same seed torch 2.0.1 draws other tokens')
def test_the_language_model_writes_what_the_readme_has():
    expected, found = printed('generate.py')
    assert found == expected


@pytest.mark.slow
def test_the_first_run_prints_what_the_readme_has(tmp_path):
    """The seconds may be others, and a loss by 0.002 on another processor."""
    folders = [f'--{name}={tmp_path}' for name in ('log_dir', 'save_dir', 'submission_dir')]
    expected, found = printed('train.py --dataset sample', *folders)
    pattern, lines = r'\d+\.\d+|\d+', iter(found)
    for line in expected:
        if line != '...':
            words = re.sub(pattern, '#', line)
            same = next(one for one in lines if re.sub(pattern, '#', one) == words)
            if ' updates in ' not in line:
                assert list(map(float, re.findall(pattern, same))) == pytest.approx(
                    list(map(float, re.findall(pattern, line))), abs=0.002)


def test_the_table_of_the_readme_is_made_from_the_results():
    for path in sorted((ROOT / 'results').glob('table*.json')):
        assert '\n'.join(tables.lines_of_table(read_sealed(path))) in README


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_parses(command, monkeypatch, capsys):
    """The script exists, and every option exists and has a value that is allowed."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    place = next(i for i, word in enumerate(words) if word.endswith('.py'))
    assert (ROOT / words[place]).is_file()
    name, argv = words[place].removesuffix('.py').replace('/', '.'), words[place + 1:]
    if '--help' in argv:
        assert options_of(name, capsys)
    else:
        importlib.import_module(name).parse_args(argv)


def test_each_row_of_the_table_of_options_parses():
    rows = re.findall(r'^\|.*\| `(--[^`]*)` \|$', README, re.M)
    assert len(rows) > 5
    for row in rows:
        importlib.import_module('train').parse_args(row.split())


def test_all_options_that_are_named_exist(capsys):
    options = set().union(*(options_of(name, capsys) for name in SCRIPTS))
    assert set(re.findall(r'--\w+', ' '.join(SPANS))) - options == {'--nproc_per_node'}       # torchrun's


def test_all_files_that_are_named_exist():
    paths = re.findall(r'[\w/]+\.(?:py|md|txt|ipynb)\b|(?:model|data|tests)/(?:\w+/)?', ' '.join(SPANS))
    links = [link for link in re.findall(r'\]\(([^)]+)\)', README + PORT) if '://' not in link]
    assert len(paths) > 20 and len(links) > 2
    assert [path for path in (*paths, *links) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize('module', ['model_pytorch', 'loss', 'opt', 'utils'])
def test_the_names_that_the_port_has_too_exist(module):
    """The rows of the first table of PORT.md."""
    [rows] = re.findall(rf'^\| `{module}` \|(.*(?:\n\| +\|.*)*)', PORT, re.M)
    names = re.findall(r'`(\w+)[(`]', rows)
    assert len(names) > 1
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []
