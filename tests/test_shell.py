"""Every script from the shell: a mistake is one line on standard error and status 2; help and imports are quick."""

import subprocess
import sys

import pytest
from forked import finish, start
from toy import ROOT, TOY

SIZE = ['--n_embd', '16', '--n_head', '4', '--n_layer', '3']
TOY_MODEL = ['--model_path', str(TOY), *SIZE]
MISTAKES = [
    ('train', ['--data_dir', 'typo', *TOY_MODEL], 'typo is not a folder'),
    ('train', ['--n_batch', '0'], 'argument --n_batch: 0: must be at least 1'),
    ('train', ['--seed', 'x'], "argument --seed: invalid int value: 'x'"),
    ('train', ['--desc', '../up'], "'../up' is not the name of a run"),
    ('train', ['--no_such_option'], 'unrecognized arguments: --no_such_option'),
    ('train', ['--predict', 'stories.csv', '--desc', 'none'], 'save/none/config.json is missing'),
    ('pretrain', ['--data_dir', 'typo', '--vocab_size', '80'], 'typo is not a folder'),
    ('pretrain', ['--data_dir', '.'], 'give one vocabulary'),
    ('pretrain', ['--data_dir', '.', '--vocab_size', '80', '--checkpoint_minutes', 'nan'], '--checkpoint_minutes: nan'),
    ('generate', ['--model_path', 'typo', '--prompt', 'x'], 'typo/params_shapes.json is missing'),
    ('generate', [*TOY_MODEL, '--prompt', 'cat ' * 30], 'the prompt has 30 tokens, but n_ctx=24'),
    ('generate', ['--desc', 'none', '--prompt', 'x'], 'save/none/config.json is missing'),
    ('zero_shot', [*TOY_MODEL, '--task', 'cloze', '--data_dir', 'typo'], 'typo is not a folder'),
    ('convert', ['--from_transformers', 'typo', '--model_path', 'new'], 'typo/config.json is missing'),
    ('convert', ['--to_transformers', 'new'], 'model/params_shapes.json is missing'),
    ('analysis', ['typo.jsonl'], 'typo.jsonl is missing'),
]


@pytest.mark.parametrize('script, argv, words', MISTAKES)
def test_a_mistake_is_one_line_with_status_2_and_writes_nothing(tmp_path, script, argv, words):
    finish(start(tmp_path, argv, name=script), 2)
    err = (tmp_path / 'err').read_text()
    assert words in err and ': error: ' in err and err.count('\n') == 1, err
    assert (tmp_path / 'out').read_text() == ''
    assert {path.name for path in tmp_path.iterdir()} <= {'out', 'err', 'log', 'save'}        # at most the locks
    assert all(path.name.startswith('.') for folder in ('log', 'save') for path in (tmp_path / folder).glob('*'))


def test_a_process_of_its_own_says_the_same(tmp_path):
    run = subprocess.run([sys.executable, 'generate.py', *TOY_MODEL, '--gen_len', '3'], cwd=ROOT,
                         input='the cat sat\n' + 'cat ' * 30 + '\n', capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout.count('\n') == 1 and run.stderr.count('\n') == 1
    assert run.stderr.startswith('generate.py: error: prompt 2: the prompt has 30 tokens')


def test_importing_runs_nothing_and_needs_no_text_tools():
    code = ('import sys, train, pretrain, generate, zero_shot, convert, analysis; '
            'print([m for m in ("spacy", "pandas", "matplotlib", "sklearn", "ftfy", "scipy") if m in sys.modules])')
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == '[]\n'
