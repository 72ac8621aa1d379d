"""The options that several scripts share: their names, defaults, ranges and help.

One name means the same in every script. Nothing here imports torch, which takes seconds and comes after the options.
"""

import argparse
import math
import os

from utils import read_json

NOT_GIVEN = object()
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Options that do not change what a run computes: paths (files are compared by hashes), and how a run is interrupted.
# They may change when a run is resumed, and analysis.py ignores them when it compares runs.
INCIDENTAL = ('data_dir', 'log_dir', 'save_dir', 'submission_dir', 'token_dir', 'model_path', 'encoder_path',
              'bpe_path', 'train', 'valid', 'test', 'resume', 'checkpoint_minutes', 'submit', 'analysis', 'predict',
              'n_proc')
DROPOUT = ('embd_pdrop', 'attn_pdrop', 'resid_pdrop')
NETWORK = ('n_embd', 'n_head', 'n_layer', 'afn', *DROPOUT)  # fixed in a trained run, as is n_ctx


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that are not None or False, and does not wrap the text above the options."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=28)

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action):
        return {'int': 'N', 'float': 'X'}.get(getattr(action.type, '__name__', ''), 'NAME')


class Parser(argparse.ArgumentParser):
    """The parser of a script. A wrong option raises ValueError.

    Where defaults depend on options, a script does in two steps what `parse_args` does in one:

        given = parser.read(argv)  # {name: value} of the options on the command line
        parser.set_defaults(...)
        args = parser.complete(given)  # the others have their defaults, which --help shows
    """

    def __init__(self, script, text, usage=''):
        super().__init__(os.path.basename(script), f'python {script} {usage}[options]', text,
                         formatter_class=HelpFormatter, add_help=False)
        self.add_argument('-h', '--help', action='store_true', help='show this help message and exit')

    def error(self, message):
        raise ValueError(message)

    def read(self, argv=None, rest=None) -> dict:
        """The options on the command line, {name: value}. rest: a list for words that are none; otherwise an error."""
        found = argparse.Namespace(**dict.fromkeys([action.dest for action in self._actions], NOT_GIVEN))
        try:
            _, others = self.parse_known_args(argv, found)
            if rest is not None:
                rest += others
            elif others:
                self.error(f'unrecognized arguments: {" ".join(others)}')
        except ValueError:
            if found.help is NOT_GIVEN:  # with --help, nothing need be right or complete
                raise
        return {name: value for name, value in vars(found).items() if value is not NOT_GIVEN}

    def complete(self, given: dict) -> argparse.Namespace:
        """The options that were given, and the defaults of the others. With --help: the help, and the end."""
        if 'help' in given:
            self.print_help()
            self.exit()
        defaults = {action.dest: self.get_default(action.dest) for action in self._actions if action.dest != 'help'}
        for action in self._actions:
            if isinstance(action.default, str):  # as on the command line
                defaults[action.dest] = self._get_value(action, defaults[action.dest])
        return argparse.Namespace(**{**defaults, **given})

    def get_default(self, dest):
        """The default of an option. A folder that is read is that of the repository, where there is none here."""
        value = super().get_default(dest)
        of_repository = os.path.join(ROOT, value) if dest in ('data_dir', 'model_path') and value else ''
        return of_repository if os.path.exists(of_repository) and not os.path.exists(value) else value

    def parse_args(self, argv=None):
        return self.complete(self.read(argv))


def number(kind, low, below=None):
    """The `type` of an option whose value is a `kind` (int, float) with low <= value < below. Refuses NaN."""
    below = below or {int: 2 ** 31, float: math.inf}[kind]

    def convert(text):
        value = kind(text)
        if not low <= value < below:
            raise argparse.ArgumentTypeError(f'{text}: must be at least {low} and below {below}')
        return value
    convert.__name__ = kind.__name__  # argparse says: invalid int value
    return convert


def run_name(text):
    """The `type` of --desc: a name of files, not a path."""
    if not text or text.startswith('.') or set(text) & set('/\\:\0') or len(text) > 200:
        raise argparse.ArgumentTypeError(f'{text!r} is not the name of a run: give a name for files, not a path')
    return text


def n_cores() -> int:
    """The processor cores that this process may use: taskset and Slurm may give fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()  # macOS lacks it


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


# Groups of options that several scripts have

def add_run_args(parser, desc):
    """Name, seed and continuation of a run of training; returns the group. desc: about the default of --desc."""
    group = parser.add_argument_group('run')
    group.add_argument('--desc', type=run_name, help=f'name of the run and of its files{desc}')
    group.add_argument('--seed', type=number(int, 0, 2 ** 32), default=42, help='seed of all random numbers')
    group.add_argument('--resume', action='store_true', help='continue the run --desc, or begin it if there is none')
    group.add_argument('--checkpoint_minutes', type=number(float, 0), default=5, metavar='X', help='time between '
                       'checkpoints; 0: one after every update')
    return group


def add_training_args(parser, n_iter, lr, lr_warmup, epochs):
    """Options of training, with these defaults; returns the group. epochs: the type of --n_iter."""
    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=epochs, default=n_iter, help='epochs')
    group.add_argument('--lr', type=number(float, 0), default=lr, help='peak learning rate')
    group.add_argument('--lr_warmup', type=number(float, 0), default=lr_warmup, help='updates until the peak: '
                       'below 1 as a fraction of all, otherwise their number, at most a tenth of all')
    return group


def warmup_of(lr_warmup, n_total):
    """--lr_warmup as a fraction of all updates."""
    return lr_warmup if lr_warmup < 1 else min(lr_warmup / n_total, 0.1)


def add_network_args(parser, model_path, what):
    """Weights, vocabulary and size of the network; returns the group. model_path, what: of --model_path."""
    group = parser.add_argument_group('network and weights', 'Sizes default to those in hparams.json in --model_path, '
                                      'where it exists.')
    group.add_argument('--model_path', default=model_path, metavar='FOLDER', help=what)
    group.add_argument('--encoder_path', metavar='FILE', help='vocabulary (default: encoder_bpe_40000.json in '
                       '--model_path)')
    group.add_argument('--bpe_path', metavar='FILE', help='merges (default: vocab_40000.bpe in --model_path)')
    group.add_argument('--n_ctx', type=number(int, 1), default=512, help='longest sequence, in tokens')
    group.add_argument('--n_embd', type=number(int, 1), default=768, help='width of the hidden states')
    group.add_argument('--n_head', type=number(int, 1), default=12, help='attention heads of a block')
    group.add_argument('--n_layer', type=number(int, 1, 1001), default=12, help='blocks')
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
    """Device and precision; returns the group."""
    group = parser.add_argument_group('computing')
    group.add_argument('--device', default='auto', help='cuda, mps, cpu or cuda:1; auto: the first available one')
    group.add_argument('--dtype', default='float32', choices=['auto', 'float32', 'tf32', 'bfloat16', 'float16'],
                       help='dtype of matrix products; parameters, softmax and losses stay float32. float16 is for '
                       'GPUs without bfloat16, and scales the loss. auto: bfloat16 on CPUs with AMX or AVX512-BF16 and '
                       'on GPUs since Ampere, otherwise float32. On other CPUs both are slower than float32')
    group.add_argument('--deterministic', action='store_true', help='on CUDA, use only algorithms that give the same '
                       'bits each time (slower); a CPU does with as many threads')
    return group


def add_files_args(parser):
    """Folders that training writes to; returns the group."""
    group = parser.add_argument_group('files')
    group.add_argument('--log_dir', default='log/', metavar='FOLDER', help='the log goes here, as DESC.jsonl')
    group.add_argument('--save_dir', default='save/', metavar='FOLDER', help='the trained network goes here, as DESC/')
    return group


def take_defaults_of_model(parser, given):
    """Take the defaults of the network's options from hparams.json in --model_path, if it exists."""
    path = os.path.join(given.get('model_path', parser.get_default('model_path')) or '', 'hparams.json')
    if not os.path.lexists(path):
        return
    kinds = {action.dest: action.type or str for action in parser._actions if action.dest in ('n_ctx', 'lr', *NETWORK)}
    for name, value in read_json(path).items():
        if name == 'lr' and name not in kinds:  # a script that does not train
            continue
        if name not in kinds:
            raise ValueError(f'{path}: {name!r} is no option of the network')
        try:
            parser.set_defaults(**{name: kinds[name](str(value))})
        except (ValueError, argparse.ArgumentTypeError) as e:
            raise ValueError(f'{path}: {name}: {e}') from None


def finish_paths(args):
    """Set --encoder_path and --bpe_path, if they are not given, to the files in the model folder. Returns args."""
    args.encoder_path = args.encoder_path or os.path.join(args.model_path, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_path, 'vocab_40000.bpe')
    return args


def parse_trained_args(parser, argv) -> tuple[argparse.Namespace, dict]:
    """Add the options of `trained.open_trained`, and parse: the options, and those that were given."""
    group = parser.add_argument_group('a trained run')
    group.add_argument('--desc', type=run_name, help='name of a run of train.py, to take instead of --model_path')
    group.add_argument('--save_dir', default='save/', metavar='FOLDER', help='the --save_dir of that run')
    given = parser.read(argv)
    if 'desc' in given:
        refuse_options(given, ('model_path', 'n_ctx', *NETWORK), 'with --desc: the run has a network')
    else:
        take_defaults_of_model(parser, given)
        refuse_options(given, ('save_dir',), 'without --desc')
    return parser.complete(given), given


def refuse_options(given, options, reason: str):
    """Raise ValueError if one of these options was given, which would have no effect."""
    for name in options:
        if name in given:
            raise ValueError(f'--{name} has no effect {reason}')
