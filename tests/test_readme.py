"""README.md and PORT.md: their examples run, their commands parse, and what they name exists."""

import importlib
import re
import shlex

import pytest
from toy import ROOT

README, PORT = ((ROOT / name).read_text(encoding='utf-8') for name in ('README.md', 'PORT.md'))
EXAMPLES = re.findall('```python\n(.*?)```', README + PORT, re.S)
BASH = '\n'.join(re.findall('```bash\n(.*?)```', README, re.S))
SPANS = re.findall('`([^`\n]+)`', re.sub('```.*?```', '', README, flags=re.S))           # what is code inside a line
LINES = [line for text in (BASH, *SPANS) for line in re.split('\n| && ', text)]
COMMANDS = [line for line in LINES if re.match(r'(\S*python|torchrun) .*\w\.py\b', line)]
SCRIPTS = ('train', 'analysis', 'pretrain', 'generate', 'zero_shot', 'convert', 'model.download', 'scripts.bench',
           'scripts.tables')


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


@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_parses(command, monkeypatch, capsys):
    """The script exists, and every option exists and has a value that is allowed."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    place = next(i for i, word in enumerate(words) if word.endswith('.py'))
    assert (ROOT / words[place]).is_file()
    name, argv = words[place].removesuffix('.py').replace('/', '.'), words[place + 1:]
    if argv == ['--help']:
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
