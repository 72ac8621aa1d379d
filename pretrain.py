"""Train the language model on a folder of text: `python pretrain.py --data_dir books/ --vocab_size 40478`.

The defaults are those of the paper (section 4.1), with clipping at norm 1, which the paper does not mention. The
result, in the layout of the released weights, is the folder save/DESC: a --model_path for train.py and generate.py.
With --snapshots N, save/DESC/snapshots/0, 1, ... are too: the network after 0, 1, ... updates (figure 2 of the paper).
With --model_path training starts from such a folder. Prints after every --log_every updates: epochs updates tr_loss
va_loss va_ppl tokens/s. Interrupted, the same command goes on with --resume. Under torchrun processes share updates.
"""

import os

from common import options
from common.options import Parser, finish_paths, n_cores, number, take_defaults_of_model, warmup_of
from common.shell import begin_script, run_script


def parse_args(argv=None):
    """The options of a pre-training run. hparams.json in the model folder changes defaults."""
    parser = Parser('pretrain.py', __doc__, '--data_dir FOLDER ')
    group = parser.add_argument_group('data')
    group.add_argument('--data_dir', required=True, metavar='FOLDER', help='all *.txt in it and below it, UTF-8')
    group.add_argument('--vocab_size', type=number(int, 1), help='learn a vocabulary of at most so many tokens '
                       "from the text (2, each character twice, and merges; the paper's: 40478 = 2 + 2 * 238 + 40,000),"
                       ' instead of --encoder_path with --bpe_path or --model_path')
    group.add_argument('--n_proc', type=number(int, 1), default=n_cores(), help='processes that encode text')
    group = options.add_run_args(parser, '')
    parser.set_defaults(desc='pretrained')
    group.add_argument('--log_every', type=number(int, 1), default=1000, help='updates between two validations')
    group.add_argument('--snapshots', type=number(int, 0, 10001), default=0, metavar='N', help='keep N networks in '
                       'save/DESC/snapshots/: the last, those after 0 and 1 updates, and others between')
    group = options.add_training_args(parser, n_iter=100, lr=2.5e-4, lr_warmup=2000, epochs=number(float, 1e-6, 1e6))
    group.add_argument('--n_batch', type=number(int, 1), default=64, help='sequences in an update')
    group.add_argument('--micro_batch', type=number(int, 1), default=8, help='sequences that a process computes at a '
                       'time, with dropout of their own; for the memory there is')
    options.add_network_args(parser, None, 'weights to start from, in the released layout (default: random ones)')
    options.add_regularisation_args(parser)
    options.add_computing_args(parser)
    group = options.add_files_args(parser)
    group.add_argument('--token_dir', default='save/tokens/', metavar='FOLDER', help='encoded text is kept here')
    given = parser.read(argv)
    if given.get('model_path'):
        take_defaults_of_model(parser, given)
    args = parser.complete(given)
    paths = [args.model_path, args.encoder_path, args.bpe_path]
    is_clear = not any(paths) if args.vocab_size else args.model_path or all(paths[1:])
    if not is_clear:
        raise ValueError('give one vocabulary: --vocab_size to learn it, --encoder_path with --bpe_path, or '
                         '--model_path')
    return args if args.vocab_size else finish_paths(args)


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import json
import math
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

import fast
from common.checkpoint import MERGES, VOCABULARY, Run
from common.corpus import cut, key_of, load_tokens
from common.device import Ranks, device_of, grad_scaler, set_seed, update_by_parts
from common.examples import unfamiliar
from common.trained import hash_model, shapes_for
from common.workers import progress
from model_pytorch import TransformerModel, load_openai_pretrained_model, save_openai_pretrained_model
from opt import OpenAIAdam
from text_utils import load_vocabulary
from utils import sha256, write_sealed, write_whole

MAX_VALID = 1000  # sequences held out, at most
SHOW_EVERY = 20  # updates between two losses beside the bar on a GPU: to show one, the CPU waits for it


class LMLoss(nn.Module):
    """The training loss of a network, as a module that DistributedDataParallel can wrap."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, n_targets):
        """Sum of the next-token losses of tokens (N, T+1), divided by n_targets; logits exist only in chunks."""
        we, n_ctx = self.model.dropped_table(), self.model.n_ctx  # one draw for lookup and decoding
        if not torch.is_grad_enabled():
            we = we.detach()  # then no gradients are made
        ids, targets = tokens[:, :-1], tokens[:, 1:].flatten()
        positions = torch.arange(len(we) - n_ctx, len(we) - n_ctx + ids.size(1), device=ids.device)
        h = self.model(torch.stack([ids, positions.expand_as(ids)], dim=-1), we).flatten(0, 1)  # (N * T, C)
        return fast.WeightedCrossEntropy.apply(h, we, targets, h.new_full((len(h),), 1 / n_targets))[0]


class Sequences:
    """The text as sequences of n_ctx tokens and the next one. The end of the text is for validation."""

    def __init__(self, tokens, args, ranks):
        self.tokens, self.seed, self.n_ctx, self.ranks = tokens, args.seed, args.n_ctx, ranks
        n_sequences = (len(tokens) - 1) // args.n_ctx
        if n_sequences < 2:
            raise ValueError(f'{args.data_dir} has {len(tokens)} tokens, too few for a sequence to train on and one to '
                             f'validate with n_ctx={args.n_ctx}: it could be {(len(tokens) - 1) // 2}')
        self.n_valid = min(max(n_sequences // 100, 1), MAX_VALID)
        self.n_train_tokens = len(tokens) - 1 - self.n_valid * args.n_ctx
        self.n_train = self.n_train_tokens // args.n_ctx
        self.n_batch = min(args.n_batch, self.n_train)
        if self.n_batch % ranks.size:
            raise ValueError(f'{ranks.size} processes cannot share the {self.n_batch} sequences of an update equally')
        self.per_epoch = self.n_train // self.n_batch
        self.epoch, self.starts = None, None

    def cut_out(self, starts, n_tokens):
        """(N, n_ctx + 1) tokens from each start on; after n_tokens the text begins again."""
        places = (np.asarray(starts)[:, None] + np.arange(self.n_ctx + 1)) % n_tokens
        return torch.from_numpy(self.tokens[places].astype(np.int64))

    def batch(self, n_updates):
        """This process's share of update n_updates. Each epoch shifts all starts by a random offset and shuffles."""
        epoch, i = divmod(n_updates, self.per_epoch)
        if self.epoch != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.starts = rng.integers(self.n_ctx) + self.n_ctx * rng.permutation(self.n_train)
            self.epoch = epoch
        starts = self.starts[i * self.n_batch:(i + 1) * self.n_batch]
        return self.cut_out(starts[self.ranks.rank::self.ranks.size], self.n_train_tokens)

    def valid(self, micro_batch):
        """The starts of the sequences held out, in parts of at most micro_batch."""
        starts = self.n_train_tokens + self.n_ctx * np.arange(self.n_valid)
        return np.array_split(starts, -(-self.n_valid // micro_batch))


def build(args, n_vocab, n_total, device, ranks):
    """The network in its `LMLoss`; what training calls, this or DistributedDataParallel around it; the optimizer."""
    set_seed(args.seed)
    if args.model_path:  # before a network of any size is built
        shapes = shapes_for(args.model_path, args.encoder_path, n_vocab)
        n_ctx, n_embd = shapes[0]
        if args.n_embd != n_embd or args.n_ctx > n_ctx or 12 * args.n_layer > len(shapes) - 2:
            raise ValueError(f'{args.model_path} has {n_ctx} positions and {(len(shapes) - 2) // 12} blocks {n_embd} '
                             f'wide: n_ctx={args.n_ctx}, n_layer={args.n_layer}, n_embd={args.n_embd} do not fit')
    model = TransformerModel(args, vocab=n_vocab + args.n_ctx, n_ctx=args.n_ctx)
    if args.model_path:
        load_openai_pretrained_model(model, n_ctx=args.n_ctx, n_transfer=args.n_layer, path=args.model_path)
    runner = module = LMLoss(fast.use_fast_layers(model).to(device))
    if ranks.size > 1:
        runner = DistributedDataParallel(module)
        torch.manual_seed(args.seed + ranks.rank)  # every process draws its own dropout
    opt = OpenAIAdam(model.parameters(), lr=args.lr, schedule='warmup_cosine', t_total=n_total, l2=args.l2,
                     warmup=warmup_of(args.lr_warmup, n_total), max_grad_norm=args.max_grad_norm)
    return module, runner, opt


def update(runner, opt, batch, micro_batch, autocast, scaler, check=None):
    """One update from sequences (N, T+1), a micro-batch at a time; returns the loss, a tensor.

    check: called before each micro-batch; it may raise to end the run.
    """
    losses, n_targets = [], batch[:, 1:].numel()

    def loss_of(part):
        if check:
            check()
        loss = runner(part, n_targets)
        losses.append(loss.detach())
        return loss

    update_by_parts(loss_of, batch.split(micro_batch), runner, opt, autocast, scaler)
    return torch.stack(losses).sum()


@torch.no_grad()
def validate(run, module, data):
    """Mean next-token loss of the sequences held out, in nats; the processes share the micro-batches."""
    module.eval()
    parts, ranks = data.valid(run.args.micro_batch), run.ranks
    losses = torch.zeros(len(parts), device=run.device)
    for i in range(ranks.rank, len(parts), ranks.size):
        if run.signals.received and ranks.size == 1:  # all processes must call it equally often
            run.save_or_stop()
        with run.autocast:
            part = fast.move(data.cut_out(parts[i], len(data.tokens)), run.device)
            losses[i] = module(part, data.n_valid * data.n_ctx)
    return ranks.sum(losses).sum().item()  # each loss was computed by one process and is 0 on the others


def is_due(state, args) -> bool:
    """True if the network is to be validated now: after every log_every updates and the last one."""
    n_updates = state['n_updates']
    is_logged = state['log'][-1].get('n_updates', 0) == n_updates
    return not is_logged and (n_updates % args.log_every == 0 or n_updates == state['n_total'])


def validate_and_log(run, module, data):
    """Validate, and print and log the losses and the speed since the last validation."""
    state, seconds = run.state, run.seconds()
    n_updates, tr_loss = state['n_updates'], torch.stack(state['losses']).mean().item()
    n_tokens = (n_updates - state['log'][-1].get('n_updates', 0)) * data.n_batch * data.n_ctx
    va_loss = validate(run, module, data)
    run.log(n_epochs=n_updates / data.per_epoch, n_updates=n_updates, tr_loss=tr_loss, va_loss=va_loss,
            va_ppl=math.exp(min(va_loss, 700)), tokens_per_s=n_tokens / (seconds - state['since']))
    run.print('{n_epochs:.2f} {n_updates} {tr_loss:.3f} {va_loss:.3f} {va_ppl:.2f} {tokens_per_s:.0f}'
              .format(**state['log'][-1]))
    state['losses'], state['since'] = [], run.seconds()


def snapshots_of(n_snapshots, n_total) -> set[int]:
    """The updates after which a snapshot is written: n_total, 0, 1, and others in between at a constant ratio."""
    if n_snapshots < 2:
        return {n_total} if n_snapshots else set()
    return {0, *(round(n_total ** (1 - i / max(n_snapshots - 2, 1))) for i in range(n_snapshots - 1))}


def data_hash(args, key) -> str:
    """What must be the same to resume a run: text and vocabulary, whose hash is `key`, and the weights of the start."""
    if not args.model_path:
        return key
    return f'{key} {hash_model(args.model_path, args.encoder_path, args.bpe_path)["weights"]}'


def train(run):
    """Train from the beginning, or from the checkpoint; returns the folder of the result, the log and the model."""
    args, ranks, device = run.args, run.ranks, run.device
    if results := run.complete_results():
        if args.vocab_size:  # it was learned from the text
            args.encoder_path, args.bpe_path = run.path(VOCABULARY), run.path(MERGES)
        found = data_hash(args, key_of(args, cut(args.data_dir)[1]))
        if results.get('data', found) != found:
            raise ValueError(f'{run.results_path}: the complete run had other text, another vocabulary or other '
                             'weights to start from: choose another --desc')
        return SimpleNamespace(path=run.folder, log=results['log'], model=None)
    data, module, runner, opt, scaler = begin(run)
    state, n_total = run.state, run.state['n_total']
    snapshots = snapshots_of(args.snapshots, n_total)
    if 0 in snapshots and state['n_updates'] == 0:
        write_network(run, module.model, 'snapshots/0/')
    if is_due(state, args):  # a signal has ended the validation
        validate_and_log(run, module, data)

    bar = progress('updates', range(state['n_updates'] + 1, n_total + 1), n_total, initial=state['n_updates'],
                   disable=ranks.rank > 0)
    for n_updates in bar:
        batch = fast.move(data.batch(n_updates - 1), device)
        run.begin_update()
        loss = update(runner, opt, batch, args.micro_batch, run.autocast, scaler, run.drop_update)
        state['losses'].append(ranks.sum(loss) / ranks.size)
        state['n_updates'] = n_updates
        if device.type == 'cpu' or n_updates % SHOW_EVERY == 0:
            bar.set_postfix(loss=f'{state["losses"][-1].item():.3f}', refresh=False)
        if n_updates in snapshots:  # before the checkpoint of this update
            write_network(run, module.model, f'snapshots/{n_updates}/')
        if is_due(state, args):
            validate_and_log(run, module, data)
        run.save_or_stop()
    return finish(run, module.model)


def begin(run):
    """Encode the text, and begin the run or go on from its checkpoint: the data, the three of `build`, the scaler."""
    args, ranks = run.args, run.ranks
    ranks.agree('values of --dtype', args.dtype)  # auto may be another one on another machine
    tokens, key, n_vocab = load_tokens(args)  # one process encodes, the others wait
    ranks.agree('texts or vocabularies', key)
    data = Sequences(tokens, args, ranks)
    if not args.vocab_size:  # the vocabulary was learned from other text
        for note in unfamiliar(tokens[::1 + len(tokens) // 2 ** 20], load_vocabulary(args.encoder_path)):
            run.print(f'warning: {note}')
    n_total = max(round(data.per_epoch * args.n_iter), 1)
    module, runner, opt = build(args, n_vocab, n_total, run.device, ranks)
    scaler = grad_scaler(run.device, args.dtype)
    state = run.begin(dict(model=module.model, opt=opt, scaler=scaler), data_hash(args, key),
                      dict(n_updates=0, n_total=n_total, losses=[], since=0.))
    state['losses'] = [loss.to(run.device) for loss in state['losses']]  # a checkpoint has them on the CPU
    run.print(f'{n_vocab:,} tokens in the vocabulary; {data.n_train_tokens:,} tokens to train on, '
              f'{data.n_valid * args.n_ctx:,} held out; updates {state["n_updates"] + 1:,} to {n_total:,} of '
              f'{data.n_batch * args.n_ctx:,} tokens, on {run.device}')
    run.print('epochs updates tr_loss va_loss va_ppl tokens/s')
    return data, module, runner, opt, scaler


def write_network(run, model, folder=''):
    """Write weights, vocabulary and options of the network, all that --model_path needs, into a folder of the run;
    returns their hashes, which results.json of a snapshot holds too."""
    args, path = run.args, run.path(f'{folder}results.json')
    run.keep_vocabulary(args.encoder_path, args.bpe_path, folder)
    if run.ranks.rank:
        return None
    with suppress(FileNotFoundError):
        os.remove(path)  # of the same snapshot, before an interruption
    save_openai_pretrained_model(model, run.path(folder))
    with write_whole(run.path(f'{folder}hparams.json')) as f:
        json.dump({name: getattr(args, name) for name in ('n_embd', 'n_head', 'n_layer', 'n_ctx', 'afn')}, f)
    hashes = hash_model(run.path(folder), args.encoder_path, args.bpe_path)
    hashes['hparams'] = sha256(run.path(f'{folder}hparams.json'))
    if folder:
        write_sealed(path, dict(hashes=hashes))
    return hashes


def finish(run, model):
    """Write the network and results.json; the run is complete."""
    run.save()  # refuses parameters that are not finite
    hashes = write_network(run, model)
    results = run.finish(dict(log=run.state['log'][1:], hashes=hashes, data=run.data_hash))
    run.print(f'weights and vocabulary: {run.folder}')
    return SimpleNamespace(path=run.folder, log=results['log'], model=model)


def main(args):
    """Train, or go on; returns the folder of the result, the log and the model."""
    ranks = Ranks.of_torchrun()
    device, autocast = device_of(args, ranks)
    ranks.join(device)
    try:
        with Run(args, ranks, device, autocast) as run:
            return train(run)
    finally:
        ranks.leave()


if __name__ == '__main__':
    run_script(main, args, 'a smaller --micro_batch is the same training in less memory')
