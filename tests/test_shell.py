"""Every script from the shell: a mistake is one line on standard error and status 2; help and imports are quick."""

import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from forked import finish, start
from toy import ROOT, TOY, write

import convert
import generate
import pretrain
import train
import zero_shot
from common import device, options
from common.shell import Console, begin_script, run_script
from model_pytorch import ACT_FNS, DEFAULT_CONFIG
from opt import SCHEDULES
from scripts import bench

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
    ('generate', ['--model_path', 'typo', '--prompt', 'x'], 'typo/encoder_bpe_40000.json is missing'),
    ('generate', [*TOY_MODEL, '--prompt', 'cat ' * 30], 'the prompt has 30 tokens, but n_ctx=24'),
    ('generate', ['--desc', 'none', '--prompt', 'x'], 'save/none/config.json is missing'),
    ('zero_shot', [*TOY_MODEL, '--dataset', 'rocstories', '--data_dir', 'typo'], 'typo is not a folder'),
    ('convert', ['--from_transformers', 'typo', '--model_path', 'new'], 'typo/config.json is missing'),
    ('convert', ['--to_transformers', 'new'], 'model/encoder_bpe_40000.json is missing'),
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


def test_neither_imports_nor_reading_stories_load_what_is_needed_later():
    """No text tools, no scikit-learn and no compiler."""
    code = ('import sys, torch\n'
            'of_torch = {*sys.modules}\n'                              # torch 2.0.1 imports sympy itself
            'import train, pretrain, generate, zero_shot, convert, analysis\n'
            'train.TASKS["sample"].load(train.parse_args(["--dataset", "sample"]))\n'
            'late = "spacy pandas matplotlib sklearn ftfy scipy torch._dynamo sympy".split()\n'
            'print([m for m in late if m in {*sys.modules} - of_torch])')
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == '[]\n'


def test_the_network_needs_torch_and_numpy_alone():
    code = ('import sys; sys.modules.update(dict.fromkeys(["tqdm", "sklearn", "scipy", "pandas", "spacy", "ftfy"]));'
            'import model_pytorch, loss, opt')
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


PROGRAM = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, '.')                                # beside a script python has its folder there
found = {}
for script, *argv in json.loads(sys.argv[1]):
    sys.argv, out, err, status = [script, *argv], io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(script, run_name='__main__')
        except SystemExit as e:
            status = e.code
    found[' '.join(sys.argv)] = status, out.getvalue(), err.getvalue()
slow = 'torch spacy pandas sklearn scipy transformers matplotlib numpy'.split()
print(json.dumps([found, [name for name in slow if name in sys.modules]]))
"""
SCRIPTS = ('train.py', 'pretrain.py', 'generate.py', 'zero_shot.py', 'convert.py', 'analysis.py', 'model/download.py',
           'scripts/bench.py', 'scripts/tables.py')


def as_programs(*commands):
    """{command: (status, output, errors)} of scripts run one after the other, and the slow modules they imported."""
    run = subprocess.run([sys.executable, '-c', PROGRAM, json.dumps(commands)], cwd=ROOT, capture_output=True,
                         text=True, check=True)
    return json.loads(run.stdout)


def test_help_is_quick_grouped_and_lists_each_option_once():
    found, slow = as_programs(*([script, '--help'] for script in SCRIPTS))
    assert slow == []
    for script in SCRIPTS:
        status, text, err = found[f'{script} --help']
        assert (status, err) == (0, '') and text.startswith('usage: ')
        groups = re.split(r'^(\w.*):\n', text, flags=re.M)             # text, name, text, name, text ...
        listed = {name: re.findall(r'^  (-.*?)(?:  |$)', body, re.M)
                  for name, body in zip(groups[1::2], groups[2::2], strict=True)}
        assert listed.pop('options') == ['-h, --help'] and listed, script
        listed = [option.split()[0] for of_group in listed.values() for option in of_group]
        assert sorted(listed) == sorted(set(listed)), script
        assert {option for option in re.findall(r'--\w+', text)} >= set(listed)
        assert not re.search(r'default: (None|False|True|\[)', text), script


def test_a_wrong_option_is_refused_before_anything_slow_is_imported():
    wrong = [['train.py', '--lr', 'high'], ['train.py', '--no_such_option'], ['pretrain.py', '--data_dir', '.'],
             ['generate.py', '--n_samples', '0'], ['zero_shot.py', '--dataset', 'none'], ['convert.py'],
             ['analysis.py'], ['scripts/bench.py', '--only', 'nothing'], ['scripts/tables.py', '6']]
    found, slow = as_programs(*wrong)
    assert slow == []
    for command, (status, out, err) in found.items():
        assert status == 2 and out == '' and ': error: ' in err and err.count('\n') == 1, command


def test_help_shows_the_defaults_of_the_task_and_of_the_model_folder():
    found, _ = as_programs(['train.py', '--dataset', 'sample', '--help'])
    [(_, text, _)] = found.values()
    text = ' '.join(text.split())
    assert 'epochs (default: 3)' in text and 'peak learning rate (default: 0.001)' in text
    assert 'Defaults differ by task' in text
    assert 'width of the hidden states (default: 128)' in text        # hparams.json in model/sample


@pytest.mark.parametrize('policy, n_embd, spins', [(None, 128, '1000'), ('active', 128, None), (None, 768, None)])
def test_threads_that_wait_soon_sleep_unless_the_network_is_large_or_the_user_says_how(
        monkeypatch, policy, n_embd, spins):
    """GNU's OpenMP reads GOMP_SPINCOUNT while torch is imported."""
    monkeypatch.setattr('os.environ', {} if policy is None else {'OMP_WAIT_POLICY': policy})
    monkeypatch.setattr('signal.getsignal', lambda _: None)
    monkeypatch.setattr('sys.stdout', sys.stdout)                      # it gets other ones
    monkeypatch.setattr('sys.stderr', sys.stderr)
    assert begin_script(lambda: SimpleNamespace(n_embd=n_embd)).n_embd == n_embd
    assert os.environ.get('GOMP_SPINCOUNT') == spins


def test_the_options_name_what_there_is():
    """What is parsed before torch is imported repeats names of modules that import it."""
    assert {*zero_shot.PROBLEMS, 'blimp', 'perplexity'} == {*zero_shot.NAMES}
    assert [*bench.SECTIONS] == [*bench.SECTION_NAMES]
    args = vars(train.parse_args([]))
    assert {name: args[name] for name in DEFAULT_CONFIG} == DEFAULT_CONFIG
    for name, values in (('afn', ACT_FNS), ('lr_schedule', SCHEDULES), ('dtype', ['auto', *device.DTYPES])):
        assert [vars(train.parse_args([f'--{name}', value]))[name] for value in values] == [*values]
        with pytest.raises(ValueError) as raised:
            train.parse_args([f'--{name}', 'other'])
        assert {*re.findall(r'\w+', str(raised.value).partition('choose from')[2])} == {*values}


EVIL = '\x1b]0;title\x07 \x1b[2J \x9b2J a\tb \r c \x7f'
SHOWN = r'\x1b]0;title\x07 \x1b[2J \x9b2J a' + '\t' + r'b \x0d c \x7f'


def test_a_console_gets_what_it_has_and_no_control_characters():
    for encoding, text, shown in (('utf-8', EVIL + 'ö', SHOWN + 'ö'), ('ascii', 'Größe', 'Gr??e'),
                                  ('cp932', 'ö日', '?日'), ('utf-8', 'l\udce9', 'l?')):
        out = io.TextIOWrapper(io.BytesIO(), encoding)
        print(text, file=Console(out), flush=True)
        assert out.buffer.getvalue().decode(encoding) == shown + '\n'
    err, log = io.StringIO(), io.StringIO()
    err.isatty = lambda: True
    for text in ('\r 5%|x\x1b', '\n\x1b[A', '\x1b[A', '\r', 'evil\x1b[A', '\x1b[Aevil'):    # tqdm's, and two others
        print(text, file=Console(err, bars=True), end='|')
    for text in ('\repoch 1/3: 5 %, 02:00 left\n', '\r           ', '\r'):  # in a log file
        print(text, file=Console(log, bars=True), end='')
    assert log.getvalue() == 'epoch 1/3: 5 %, 02:00 left\n'
    assert err.getvalue() == '\r 5%|x\\x1b|\n\x1b[A|\x1b[A|\r|evil\\x1b[A|\\x1b[Aevil|'


def test_data_cannot_steer_the_terminal(tmp_path):
    found, _ = as_programs(
        ['analysis.py', f'{EVIL}.jsonl'], ['train.py', '--desc', EVIL, '--predict', 'x'],
        ['generate.py', *TOY_MODEL, '--prompt', 'the', '--temperature', EVIL],
        ['pretrain.py', '--data_dir', EVIL, '--vocab_size', '80', f'--save_dir={tmp_path}', f'--log_dir={tmp_path}'])
    assert len(found) == 4
    for status, out, err in found.values():
        assert status == 2 and 'title' in err
        assert {*out, *err} & {*map(chr, range(32)), '\x7f', '\x9b'} <= {'\n'}


def without(descriptors, argv, folder):
    """Run Python with these descriptors closed, as daemons have them."""
    code = f'import os, sys; [os.close(n) for n in {descriptors}]; os.execv(sys.executable, [sys.executable, *{argv}])'
    return subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize('closed', [(1,), (2,), (0, 1)])
def test_work_is_shared_out_where_descriptors_are_closed(tmp_path, closed):
    """The processes have the same ones closed, and their pipes may not take the numbers of these."""
    code = (f'import sys; sys.path.insert(0, {str(ROOT)!r}); import common.shell; from common.workers import share_out;'
            'sizes = share_out(len, ["a", "bc"], 2, "x"); print(sizes); print(sizes, file=sys.stderr);'
            'open("sizes", "w").write(repr(sizes))')
    run = without(closed, ['-c', code], tmp_path)
    assert run.returncode == 0 and (tmp_path / 'sizes').read_text() == '[1, 2]', run.stderr
    assert (run.stdout, run.stderr) == tuple('' if n in closed else '[1, 2]\n' for n in (1, 2))


@pytest.mark.parametrize('closed', [(0,), (1, 2), (0, 1, 2)])
def test_closed_descriptors_do_no_harm(tmp_path, closed):
    """Text is encoded in processes of their own, which have the same ones."""
    for i in range(2):
        (tmp_path / f'{i}.txt').write_text('the cat sat and the dog ran\n' * 200)
    argv = ['--data_dir', '.', '--encoder_path', f'{TOY}/encoder_bpe_40000.json', '--bpe_path',
            f'{TOY}/vocab_40000.bpe', '--n_embd', '8', '--n_head', '1', '--n_layer', '1', '--n_ctx', '8', '--n_iter',
            '1', '--n_proc', '2']
    run = without(closed, [str(ROOT / 'pretrain.py'), *argv], tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / 'save' / 'pretrained' / 'results.json').exists()
    assert ('weights and vocabulary' in run.stdout) == (1 not in closed)


def test_a_console_without_all_characters_does_not_end_a_run(tmp_path, monkeypatch):
    """train.py says the names of files and classes."""
    monkeypatch.chdir(tmp_path)
    rows = [[f'the cat {word}', name] for word in ('sat', 'ran') for name in ('Größe', 'Länge')] * 20
    write(tmp_path / 'ü.csv', [['text', 'Größe'], *rows])
    argv = ['--dataset', 'own', '--train', 'ü.csv', '--text', 'text', '--label', 'Größe', '--desc', 'läuft', '--n_iter',
            '1', '--n_batch', '8', '--n_gpu', '1', *TOY_MODEL]
    for more in ([], ['--resume']):
        for name in ('stdout', 'stderr'):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), 'ascii'))
        run_script(train.main, begin_script(lambda more=more: train.parse_args([*argv, *more])))
        assert b'log/l?uft.jsonl' in sys.stdout.buffer.getvalue()
    assert json.loads((tmp_path / 'save' / 'läuft' / 'config.json').read_text())['classes'] == ['Größe', 'Länge']


OWN = ['--train', 'x', '--text', 'text', '--label', 'label']


def test_folders_that_are_read_are_those_of_the_repository_where_there_are_none_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = train.parse_args(['--dataset', 'sample'])
    assert (args.model_path, args.data_dir) == (f'{ROOT}/model/sample/', f'{ROOT}/data/sample/')
    assert (args.n_embd, args.save_dir) == (128, 'save/')              # hparams.json is found; what is written stays
    assert train.parse_args(['--dataset', 'own', *OWN]).model_path == f'{ROOT}/model/books/'
    (tmp_path / 'model' / 'sample').mkdir(parents=True)
    assert train.parse_args(['--dataset', 'sample']).model_path == 'model/sample/'
    assert train.parse_args(['--data_dir', 'data/']).data_dir == 'data/'                # as it was given
    assert convert.parse_args(['--from_transformers', 'x']).model_path == 'model/'      # is written


def test_as_many_processes_as_cores_that_this_one_may_use(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {3, 5, 7}, raising=False)
    assert pretrain.parse_args(['--data_dir', '.', '--vocab_size', '9']).n_proc == 3


@pytest.mark.parametrize('script, argv', [
    (train, ['--n_layer', '1000000000']), (pretrain, ['--data_dir', '.', '--n_layer', '1000000000']),
    (pretrain, ['--data_dir', '.', '--snapshots', '1000000000']), (generate, ['--n_samples', '1000000000'])])
def test_sizes_that_no_machine_has_are_refused_at_once(script, argv):
    with pytest.raises(ValueError, match='1000000000: must be at least'):
        script.parse_args(argv)


def test_a_warm_up_is_a_fraction_or_a_number_of_updates():
    assert options.warmup_of(0.002, 500) == 0.002 and options.warmup_of(0, 500) == 0
    assert options.warmup_of(20, 500) == 20 / 500
    assert options.warmup_of(2000, 500) == 0.1                         # of a short run at most a tenth
