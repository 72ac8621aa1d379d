"""The options of all scripts: what one calls them, what they default to, and what they may be.

One name means the same in every script. Names and defaults of train.py are OpenAI's. Nothing here imports torch, which
takes seconds: a script parses its options before it does.
"""

import argparse
import math
import os

from tasks import TASKS, own
from tasks.own import COLUMNS, columns_of
from tasks.stories import N_VALID
from utils import read_json, read_text

ROOT = os.path.dirname(os.path.abspath(__file__))

# Options that do not change what a run computes: paths (files are compared by hashes), and how a run is interrupted.
# They may change when a run is resumed, and analysis.py ignores them when it compares runs.
INCIDENTAL = ('data_dir', 'log_dir', 'save_dir', 'submission_dir', 'token_dir', 'model_path', 'encoder_path',
              'bpe_path', 'train', 'valid', 'test', 'resume', 'checkpoint_minutes', 'submit', 'analysis', 'predict',
              'n_proc')
DROPOUT = ('embd_pdrop', 'attn_pdrop', 'resid_pdrop')
NETWORK = ('n_embd', 'n_head', 'n_layer', 'afn', *DROPOUT)              # with n_ctx, what is fixed in a trained run

ZERO_SHOT = [*(name for name, task in TASKS.items() if task.zero_shot), 'winograd', 'blimp', 'perplexity']
SCHEDULES = ('warmup_cosine', 'warmup_constant', 'warmup_linear')
DTYPES = ('float32', 'tf32', 'bfloat16', 'float16')

OWN = ('train', 'valid', 'test', 'text', 'label', 'form', 'number', 'label_base')

# scripts/tables.py
ROWS = {                                # a row of table 5 -> options of train.py
    'full': [],
    'no_pretraining': ['--n_transfer', '-1'],
    'no_lm': ['--lm_coef', '0'],
}
TABLES = {                              # tasks of a table, in the paper's order
    '2': ('mnli', 'snli', 'scitail', 'qnli', 'rte'),
    '3': ('rocstories', 'race'),
    '4': ('cola', 'sst2', 'mrpc', 'stsb', 'qqp'),
    '5': ('cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte'),
    'figure2': ('race', 'mnli'),
}
SECTIONS = ('train', 'memory', 'pretrain', 'evaluate', 'generate', 'curves')  # of scripts/bench.py


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that are not None or False, and does not wrap the text above the options."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=28)

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action):
        return {'int': 'N', 'float': 'X'}.get(getattr(action.type, '__name__', ''), 'NAME')


class Parser(argparse.ArgumentParser):
    """The parser of a script: help begins with the script's docstring, and a wrong option raises ValueError.

    usage: what is required.
    """

    def __init__(self, script, usage=''):
        text = read_text(os.path.join(ROOT, script))                   # importing the script would import torch
        super().__init__(os.path.basename(script), f'python {script} {usage}[options]', text.split('"""')[1],
                         formatter_class=HelpFormatter)

    def error(self, message):
        raise ValueError(message)

    def value_of(self, name, argv):
        """The value of one option, before the defaults of others are known. Text."""
        alone = argparse.ArgumentParser(add_help=False)
        alone.error = self.error
        alone.add_argument(f'--{name}', default=self.get_default(name))
        return vars(alone.parse_known_args(argv)[0])[name]


def number(kind, low, below=math.inf):
    """The `type` of an option whose value is a `kind` (int, float) with low <= value < below. Refuses NaN."""
    def convert(text):
        value = kind(text)
        if not low <= value < below:
            limit = '' if below == math.inf else f' and below {below}'
            raise argparse.ArgumentTypeError(f'{text}: must be at least {low}{limit}, and finite')
        return value
    convert.__name__ = kind.__name__                                   # argparse says: invalid int value
    return convert


def warmup(text):
    """The `type` of --lr_warmup: a fraction, or from 1 on a whole number."""
    value = number(float, 0)(text)
    if value >= 1 and not value.is_integer():
        raise argparse.ArgumentTypeError(f'{text}: must be a fraction of the updates, below 1, or a whole number of '
                                         'updates')
    return value


def run_name(text):
    """The `type` of --desc: a name of files, not a path."""
    if not text or text.startswith('.') or set(text) & set('/\\:\0') or len(text) > 200:
        raise argparse.ArgumentTypeError(f'{text!r} is not the name of a run: it names files, so it must not be a '
                                         'path, contain a slash or start with a dot')
    return text


def seed_list(text):
    """'1,42-44' -> [1, 42, 43, 44]"""
    seeds = []
    for part in text.split(','):
        first, _, last = part.partition('-')
        first, last = int(first), int(last or first)
        if not 0 <= first <= last < min(2 ** 32, first + 10_000):
            raise ValueError
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError
    return seeds


def layers(text):
    """'0-12' or '0,6,12' -> numbers of blocks that are taken from the released network"""
    first, dash, last = text.partition('-')
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(',')]


def names(known):
    """The `type` of an option with some of the `known` names, between commas."""
    def convert(text):
        found = text.split(',')
        if unknown := [name for name in found if name not in known]:
            raise ValueError(unknown)
        return found
    convert.__name__ = f'list of {", ".join(known)}'
    return convert


# Groups of options that several scripts have

def add_run_args(parser, desc):
    """How a run of training is named, seeded and continued; returns the group. desc: words on the default of --desc."""
    group = parser.add_argument_group('run')
    group.add_argument('--desc', type=run_name, help=f'name of the run and of its files{desc}')
    group.add_argument('--seed', type=number(int, 0, 2 ** 32), default=42, help='seed of all random numbers')
    group.add_argument('--resume', action='store_true', help='continue the run --desc from its last checkpoint; '
                       'without one it begins anew')
    group.add_argument('--checkpoint_minutes', type=number(float, 0), default=5, metavar='X', help='time between '
                       'checkpoints; 0: one after every update')
    return group


def add_training_args(parser, n_iter, lr, lr_warmup, epochs):
    """Options of training, with these defaults; returns the group. epochs: the type of --n_iter."""
    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=epochs, default=n_iter, help='epochs')
    group.add_argument('--lr', type=number(float, 0), default=lr, help='peak learning rate')
    group.add_argument('--lr_warmup', type=warmup, default=lr_warmup, metavar='X', help='updates until the peak: their '
                       'fraction of all, or from 1 on their number, at most a tenth of all')
    return group


def warmup_of(lr_warmup, n_total):
    """--lr_warmup as a fraction of all updates."""
    return lr_warmup if lr_warmup < 1 else min(lr_warmup / n_total, 0.1)


def add_path_args(group, model_path, what):
    """A model folder and the vocabulary in it. model_path, what: default and help of --model_path."""
    group.add_argument('--model_path', default=model_path, metavar='FOLDER', help=what)
    group.add_argument('--encoder_path', metavar='FILE', help='vocabulary (default: encoder_bpe_40000.json in '
                       '--model_path)')
    group.add_argument('--bpe_path', metavar='FILE', help='merges (default: vocab_40000.bpe in --model_path)')


def add_network_args(parser, model_path, what):
    """Weights, vocabulary and size of the network, without its dropout; returns the group."""
    group = parser.add_argument_group('network and weights', 'Sizes default to those in hparams.json in --model_path, '
                                      'where it exists.')
    add_path_args(group, model_path, what)
    group.add_argument('--n_ctx', type=number(int, 1), default=512, help='longest sequence, in tokens')
    group.add_argument('--n_embd', type=number(int, 1), default=768, help='width of the hidden states')
    group.add_argument('--n_head', type=number(int, 1), default=12, help='attention heads of a block')
    group.add_argument('--n_layer', type=number(int, 1), default=12, help='blocks')
    group.add_argument('--afn', default='gelu', choices=['gelu', 'swish', 'relu'], help='activation function')
    return group


def add_dropout_args(group, hidden=False):
    """Rates of dropout in the network; hidden where nothing is trained, because hparams.json may have them."""
    for name, what in zip(DROPOUT, ('the embedding table', 'attention weights',
                                    'the output of each attention and feed-forward layer'), strict=True):
        group.add_argument(f'--{name}', type=number(float, 0, 1), default=0.1,
                           help=argparse.SUPPRESS if hidden else f'dropout rate of {what}')


def add_regularisation_args(parser):
    """Dropout, weight decay and clipping; returns the group."""
    group = parser.add_argument_group('regularisation')
    add_dropout_args(group)
    group.add_argument('--l2', type=number(float, 0), default=0.01, help='decoupled weight decay of all but biases and '
                       'gains')
    group.add_argument('--max_grad_norm', type=number(float, -math.inf), default=1, help='clip gradients to this '
                       'global norm; -1: do not')
    return group


def add_computing_args(parser):
    """Where and how precisely to compute; returns the group."""
    group = parser.add_argument_group('computing')
    group.add_argument('--device', default='auto', help='cuda, mps, cpu or cuda:1; auto: the first available one')
    group.add_argument('--dtype', default='float32', choices=['auto', *DTYPES], help='dtype of matrix products; '
                       'parameters, softmax and losses stay float32. float16 is for GPUs without bfloat16, and scales '
                       'the loss. On most CPUs without AMX both are slower than float32. auto: bfloat16 where it is '
                       'fast (GPUs since Ampere, CPUs with AMX), otherwise float32')
    group.add_argument('--deterministic', action='store_true', help='on CUDA, use only algorithms that give the same '
                       'bits each time (slower); a CPU does with as many threads')
    return group


def add_files_args(parser):
    """Folders that training writes to; returns the group."""
    group = parser.add_argument_group('files')
    group.add_argument('--log_dir', default='log/', metavar='FOLDER', help='the log goes here, as DESC.jsonl')
    group.add_argument('--save_dir', default='save/', metavar='FOLDER', help='the trained network goes here, as the '
                       'folder DESC')
    return group


def take_defaults_of_model(parser, argv):
    """Take the defaults of the network's options from hparams.json in --model_path, if it exists."""
    name = os.path.join(parser.value_of('model_path', argv) or '', 'hparams.json')
    if not os.path.lexists(name):
        return
    defaults = read_json(name)
    for key, value in defaults.items():
        kind = type(parser.get_default(key))
        if kind not in (int, float, str):
            raise ValueError(f'{name}: {key!r} is no option of the network')
        if type(value) is not kind and (type(value), kind) != (int, float):
            raise ValueError(f'{name}: {key} is {value!r}, but must be of type {kind.__name__}')
        if kind is int and abs(value) >= 2 ** 31:
            raise ValueError(f'{name}: {key} is {value!r}, which is too large')
    parser.set_defaults(**{key: str(value) for key, value in defaults.items()})      # argparse checks text defaults


def finish_paths(args):
    """Set --encoder_path and --bpe_path, if they are not given, to the files in the model folder. Returns args."""
    args.encoder_path = args.encoder_path or os.path.join(args.model_path, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_path, 'vocab_40000.bpe')
    return args


def parse_trained_args(parser, argv):
    """Add the options of `trained.open_trained`, and parse. Raises ValueError for an option without effect."""
    group = parser.add_argument_group('a trained run')
    group.add_argument('--desc', type=run_name, help='name of a run of train.py, to take instead of --model_path')
    group.add_argument('--save_dir', default='save/', metavar='FOLDER', help='the --save_dir of that run')
    if parser.value_of('desc', argv) is None:
        take_defaults_of_model(parser, argv)
        refuse_options(parser, argv, ('save_dir',), 'without --desc')
    else:
        refuse_options(parser, argv, ('model_path', 'n_ctx', *NETWORK), 'with --desc: the run has a network')
    return parser.parse_args(argv)


def refuse_options(parser, argv, options, reason: str):
    """Raise ValueError if the command line has one of these options, which would have no effect."""
    args = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(options))))   # None: not given
    for name in options:
        if args[name] is not None:
            raise ValueError(f'--{name} has no effect {reason}')


# The scripts, each as a function from its command line to its options

def train_options(argv=None):
    """The options of a fine-tuning run. --dataset, and hparams.json in the model folder, change defaults."""
    parser = Parser('train.py')
    defaults = {**{name: task.defaults for name, task in TASKS.items()}, 'own': own.DEFAULTS}
    group = parser.add_argument_group('data')
    group.add_argument('--dataset', default='rocstories', choices=defaults, metavar='NAME', help='task: '
                       f'{", ".join(defaults)}; sample and sample-... need no download, own is any file of examples')
    group.add_argument('--data_dir', default='data/', metavar='FOLDER', help='the files of the task')
    group.add_argument('--n_valid', type=number(int, 1), default=N_VALID, help='examples set aside for validation, '
                       'where the task has no file of them')
    add_own_args(parser)
    group = add_run_args(parser, ' (default: that of --dataset)')
    group.add_argument('--seeds', type=seed_list, metavar='LIST', help='several runs, each with files of its own, '
                       'DESC-SEED: 42-51, or 1,2,5')
    group.add_argument('--submit', action='store_true', help='predict the test file with the best parameters; the '
                       'file has the name that is usual for the task')
    group.add_argument('--analysis', action='store_true', help='print the scores of the best parameters on the '
                       'validation and test examples (implies --submit)')
    group.add_argument('--predict', metavar='FILE', help='no training: load the run --desc and write predictions with '
                       'probabilities for the examples in FILE')
    group = add_training_args(parser, n_iter=3, lr=6.25e-5, lr_warmup=0.002, epochs=number(int, 1))
    group.add_argument('--n_batch', type=number(int, 1), default=8, help='examples in a tower, which is computed at a '
                       'time, with dropout of its own')
    group.add_argument('--n_gpu', type=number(int, 1), default=4, help='towers: an update takes n_batch * n_gpu '
                       'examples; one device computes one tower after the other')
    group.add_argument('--lr_schedule', default='warmup_linear', choices=SCHEDULES, help='learning rate over time')
    group.add_argument('--lm_coef', type=number(float, 0), default=0.5, help='weight of the language-model loss')
    group.add_argument('--opt', default='adam', choices=['adam'], help='optimizer')
    group.add_argument('--b1', type=number(float, 0, 1), default=0.9, help="Adam's first decay rate")
    group.add_argument('--b2', type=number(float, 0, 1), default=0.999, help="Adam's second decay rate")
    group.add_argument('--e', type=number(float, 0), default=1e-8, help="Adam's epsilon")
    group = add_network_args(parser, 'model/', 'the weights to start from, in the released layout')
    group.add_argument('--n_transfer', type=number(int, -1), default=12, help='blocks taken from these weights; -1: '
                       'nothing, not even the embeddings')
    group = add_regularisation_args(parser)
    group.add_argument('--clf_pdrop', type=number(float, 0, 1), default=0.1, help='dropout rate of the classifier')
    group.add_argument('--vector_l2', action='store_true', help='weight decay of biases and gains too')
    group = add_computing_args(parser)
    group.add_argument('--plain', action='store_true', help='compute with model_pytorch.py and loss.py as they are '
                       'written, not with the faster equivalents of fast.py')
    group = add_files_args(parser)
    group.add_argument('--submission_dir', default='submission/', metavar='FOLDER', help='predictions go here')
    # the command line wins over hparams.json in the model folder, that over the task, and the task over the original
    parser.set_defaults(**defaults.get(parser.value_of('dataset', argv), {}))
    take_defaults_of_model(parser, argv)
    args = parser.parse_args(argv)
    if args.n_embd % args.n_head:
        raise ValueError(f'n_embd={args.n_embd} cannot be split into n_head={args.n_head} equal heads')
    if args.n_transfer > max(12, args.n_layer):                        # 12, the default, means all of a smaller network
        raise ValueError(f'n_transfer={args.n_transfer}: the network has n_layer={args.n_layer} blocks')
    if args.n_ctx < 6:
        raise ValueError(f'n_ctx={args.n_ctx}: must be at least 6, for three special tokens and the texts')
    args.desc = args.desc or args.dataset
    check_own_args(args)
    args.submit |= args.analysis
    return args if args.predict else finish_paths(args)


def add_own_args(parser):
    """The options of --dataset own. Those that are not given are None."""
    group = parser.add_argument_group('data of your own (--dataset own)', 'Files are csv, tsv (no quotes), jsonl, or '
                                      'parquet.')
    group.add_argument('--train', metavar='FILE', help='training examples')
    group.add_argument('--text', metavar='COLUMNS', help='columns of the texts: title,body. A name with a comma is '
                       'written between double quotes. What each --form takes: '
                       + '; '.join(f'{form}: {what}' for form, (*_, what) in COLUMNS.items()))
    group.add_argument('--label', metavar='COLUMN', help='column of the class; with --form choices of the right '
                       "answer, given by its column's name or its exact text")
    group.add_argument('--form', choices=COLUMNS, help='what an example is (default: text)')
    group.add_argument('--number', action='store_true', default=None, help='the label is a number to estimate, not a '
                       'class')
    group.add_argument('--label_base', type=int, choices=[0, 1], help='with --form choices: the label is the number of '
                       'the right answer, counted from 0 or from 1')
    group.add_argument('--valid', metavar='FILE', help='validation examples (default: --n_valid of the training file, '
                       f'a fifth but at most {N_VALID}, stratified by class)')
    group.add_argument('--test', metavar='FILE', help='examples to predict after training, labelled or not')


def check_own_args(args):
    """Complete the options of own data. ValueError for those that are missing, do not fit, or have no effect."""
    given = [name for name in OWN if getattr(args, name) is not None]
    if args.predict:
        if given:
            raise ValueError(f'--{given[0]} has no effect with --predict: {args.desc} knows its columns and classes')
        return
    if args.dataset != 'own':
        if given:
            raise ValueError(f'--{given[0]} needs --dataset own')
        return
    for name in ('train', 'text', 'label'):
        if not (getattr(args, name) or '').strip():
            raise ValueError(f'--dataset own needs --{name}: --train reviews.csv --text title,body --label stars')
    args.form, args.label = args.form or 'text', args.label.strip()
    columns = columns_of(args.text)
    _, least, most, what = COLUMNS[args.form]
    if not least <= len(columns) <= most:
        raise ValueError(f'--text {args.text}: --form {args.form} takes {what}')
    for i, name in enumerate(columns):
        if not name and not (args.form == 'choices' and i == 1):
            raise ValueError(f'--text {args.text}: column {i + 1} has no name')
        if name and name.lower() in (other.lower() for other in [*columns[:i], args.label]):
            raise ValueError(f'column {name} is named twice in --text and --label')
    if args.form == 'choices' and args.number:
        raise ValueError('--number has no effect with --form choices: the label is the right answer')
    if args.form != 'choices' and args.label_base is not None:
        raise ValueError('--label_base has no effect without --form choices')
    if args.valid and args.n_valid:
        raise ValueError('--n_valid has no effect with --valid')
    args.analysis |= bool(args.test)                                   # a test file is there to be predicted


def pretrain_options(argv=None):
    """The options of a pre-training run. hparams.json in the model folder changes defaults."""
    parser = Parser('pretrain.py', '--data_dir FOLDER ')
    group = parser.add_argument_group('data')
    group.add_argument('--data_dir', required=True, metavar='FOLDER', help='the text: all *.txt in it and below it, '
                       'UTF-8')
    group.add_argument('--vocab_size', type=number(int, 1), help='learn a vocabulary of at most so many tokens '
                       "from the text (2, each character twice, and merges; the paper's: 40478 = 2 + 2 * 238 + 40,000),"
                       ' instead of --encoder_path with --bpe_path or --model_path')
    group.add_argument('--n_proc', type=number(int, 1), default=os.cpu_count(), help='processes that encode text')
    group = add_run_args(parser, '')
    parser.set_defaults(desc='pretrained')
    group.add_argument('--log_every', type=number(int, 1), default=1000, help='updates between two validations')
    group.add_argument('--snapshots', type=number(int, 0), default=0, metavar='N', help='keep the network after 0, 1 '
                       'and further updates up to the end, N of them, in save/DESC/snapshots/; 0: none')
    group = add_training_args(parser, n_iter=100, lr=2.5e-4, lr_warmup=2000, epochs=number(float, 0))
    group.add_argument('--n_batch', type=number(int, 1), default=64, help='sequences in an update')
    group.add_argument('--micro_batch', type=number(int, 1), default=8, help='sequences that a process computes at a '
                       'time, with dropout of their own; for the memory there is')
    add_network_args(parser, None, 'weights to start from, in the released layout (default: random ones)')
    add_regularisation_args(parser)
    add_computing_args(parser)
    group = add_files_args(parser)
    group.add_argument('--token_dir', default='save/tokens/', metavar='FOLDER', help='encoded text is kept here')
    if parser.value_of('model_path', argv):
        take_defaults_of_model(parser, argv)
    args = parser.parse_args(argv)
    paths = [args.model_path, args.encoder_path, args.bpe_path]
    is_clear = not any(paths) if args.vocab_size else args.model_path or all(paths[1:])
    if not is_clear:
        raise ValueError('give one vocabulary: --vocab_size to learn it, --encoder_path with --bpe_path, or '
                         '--model_path')
    return args if args.vocab_size else finish_paths(args)


def generate_options(argv=None):
    parser = Parser('generate.py', '[--prompt TEXT | --score FILE] ')
    group = parser.add_argument_group('what to do').add_mutually_exclusive_group()
    group.add_argument('--prompt', metavar='TEXT', help='text to continue; without it, each line of standard input is '
                       'a prompt')
    group.add_argument('--score', metavar='FILE', help='print log-probability and perplexity of each line and in total')
    group = parser.add_argument_group('generation')
    group.add_argument('--gen_len', type=number(int, 1), default=40, help='number of tokens to add, limited by n_ctx')
    group.add_argument('--temperature', type=float, default=1., help='divides the logits; 0 is the same as --greedy')
    group.add_argument('--topk', type=int, default=0, help='draw from the k most probable tokens; 0: from all')
    group.add_argument('--topp', type=float, default=1., help='draw from the fewest tokens with this total probability')
    group.add_argument('--greedy', action='store_true', help='always take the most probable token')
    group.add_argument('--n_samples', type=number(int, 1), default=1, help='continuations of each prompt; a single one '
                       'is printed word by word')
    group.add_argument('--seed', type=number(int, 0, 2**32), default=42, help='seed of the random draws')
    group = parser.add_argument_group('scores')
    group.add_argument('--per_token', action='store_true', help='with --score, also print a line for each token')
    add_network_args(parser, 'model/', 'the weights, in the released layout')
    add_dropout_args(parser, hidden=True)
    add_computing_args(parser)
    args = parse_trained_args(parser, argv)
    if args.score:
        draws = ('gen_len', 'temperature', 'topk', 'topp', 'greedy', 'n_samples', 'seed')
        refuse_options(parser, argv, draws, 'with --score')
    else:
        refuse_options(parser, argv, ('per_token',), 'without --score')
    return args


def zero_shot_options(argv=None):
    parser = Parser('zero_shot.py', '--dataset NAME ')
    group = parser.add_argument_group('data')
    group.add_argument('--dataset', required=True, choices=ZERO_SHOT, metavar='NAME',
                       help=f'task to evaluate: {", ".join(ZERO_SHOT)}')
    group.add_argument('--data_dir', default='data/', metavar='FOLDER', help='the Story Cloze files, the files of '
                       'CoLA, RACE or SST-2 (see tasks/__init__.py), or for winograd DPRD (train.c.txt, test.c.txt), '
                       'wsc273.txt, or winograd.tsv, a table with the columns sentence (_ for the pronoun), '
                       'candidate1, candidate2, label (1 or 2)')
    add_network_args(parser, 'model/', 'the weights, in the released layout')
    add_dropout_args(parser, hidden=True)
    add_computing_args(parser)
    return parse_trained_args(parser, argv)


def convert_options(argv=None):
    parser = Parser('convert.py', '(--from_transformers FOLDER | --to_transformers FOLDER) ')
    group = parser.add_argument_group('what to do').add_mutually_exclusive_group(required=True)
    group.add_argument('--from_transformers', metavar='FOLDER', help='convert this checkpoint to --model_path')
    group.add_argument('--to_transformers', metavar='FOLDER', help='convert --model_path, or the run --desc, to here')
    group = add_network_args(parser, 'model/', 'the folder in the released layout')
    add_dropout_args(group)                                            # config.json of the library has them
    args = parse_trained_args(parser, argv)
    if args.from_transformers:
        refuse_options(parser, argv, ('desc', 'n_ctx', *NETWORK), 'with --from_transformers')
        finish_paths(args)
    return args


def analysis_options(argv=None):
    parser = Parser('analysis.py', 'LOG [LOG ...] ')
    group = parser.add_argument_group('what to read')
    group.add_argument('logs', nargs='+', metavar='LOG', help='logs of train.py, one for each seed, and of pretrain.py')
    group = parser.add_argument_group('figures')
    group.add_argument('--figure_dir', default='log/', metavar='FOLDER', help='figures go here: learning_curves.png '
                       'and accuracies.png, or pretraining.png')
    group.add_argument('--no_figures', action='store_true', help='draw none')
    return parser.parse_args(argv)


def bench_options(argv=None):
    parser = Parser('scripts/bench.py')
    group = parser.add_argument_group('what to measure')
    group.add_argument('--only', nargs='+', choices=SECTIONS, help='these sections; the others of the report do not '
                       'change (default: all)')
    group.add_argument('--rounds', type=number(int, 1), default=5, help='rounds of each comparison, after a first one')
    group.add_argument('--against', nargs='+', metavar='FOLDER', help='checkouts to compare with: of the '
                       'port (train), of nanoGPT (pretrain)')
    group.add_argument('--toy', action='store_true', help='use a tiny network, to test this script')
    group.add_argument('--device', default='auto', help='cuda, mps or cpu; auto: the first available one')
    group = parser.add_argument_group('files')
    group.add_argument('--out', metavar='FILE', help='the report; its picture is beside it (default: BENCHMARKS.md, '
                       'with --toy BENCHMARKS.toy.md)')
    args = parser.parse_args(argv)
    args.out = args.out or ('BENCHMARKS.toy.md' if args.toy else 'BENCHMARKS.md')
    return args


def tables_options(argv=None):
    """The options of scripts/tables.py, with those of train.py as `rest`."""
    parser = Parser('scripts/tables.py', '{2,3,4,5,figure2} ')
    parser.allow_abbrev = False                                        # --seed is an option of train.py, not --seeds
    group = parser.add_argument_group('what to make')
    group.add_argument('what', choices=TABLES, help='table of the paper, or figure2')
    group.add_argument('--datasets', type=names(TASKS), metavar='LIST',
                       help='some tasks, between commas (default: those of the paper)')
    group.add_argument('--rows', type=names(ROWS), metavar='LIST', help=f'rows of table 5: {",".join(ROWS)} (default: '
                       'all; the other tables have the row full)')
    group.add_argument('--seeds', type=seed_list, default='42', metavar='LIST', help='42-44, or 1,2,5')
    group.add_argument('--layers', type=layers, default='0-12', metavar='LIST', help='for figure2: values of '
                       '--n_transfer')
    group.add_argument('--zip', action='store_true', help="write glue.zip for GLUE's server into --submission_dir: the "
                       'predictions of the seed that is best on the dev set, of the row full')
    args, args.rest = parser.parse_known_args(argv)
    args.datasets = args.datasets or list(TABLES[args.what])
    args.rows = args.rows or (list(ROWS) if args.what == '5' else ['full'])
    chosen = [option for option in args.rest if option.split('=')[0] in ('--dataset', '--seed', '--desc',
                                                                         '--n_transfer')]
    if chosen:
        raise ValueError(f'{chosen[0]} has no effect here: this script chooses it for each run')
    train_options([*args.rest, '--dataset', args.datasets[0]])         # a mistake is found before torch is imported
    return args
