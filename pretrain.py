"""Train the language model on a folder of text: `python pretrain.py --data_dir books/ --vocab_size 40478`.

The defaults are the paper's recipe (section 4.1). The result, in the layout of the released weights, is the folder
save/DESC: a --model_path for train.py and generate.py. With --init PATH training starts from such a folder.
Prints at intervals: epochs updates tr_loss va_loss va_ppl tokens/s. Interrupted, it goes on with the same command and
--resume.
"""

import json
import math
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm

import fast
from checkpoint import Signals, Stopped, generator_states, load_state, lock, save_state, set_aside, set_generator_states
from corpus import load_tokens
from device import add_device_args, choose_device, set_seed
from model_pytorch import (
    DEFAULT_CONFIG,
    TransformerModel,
    load_openai_pretrained_model,
    read_shapes,
    save_openai_pretrained_model,
)
from opt import OpenAIAdam
from utils import Parser, ResultLogger, add_model_args, defaults_of_model, finish_paths, run_script, write_whole

MAX_VALID = 1000                                        # sequences held out, at most
AT_LEAST_1 = ('n_ctx', 'n_embd', 'n_head', 'n_layer', 'n_iter', 'n_batch', 'micro_batch', 'log_every', 'n_proc')
MAY_CHANGE = ('resume', 'checkpoint_minutes', 'n_proc', 'data_dir', 'token_dir', 'log_dir', 'encoder_path', 'bpe_path')


def parse_args(argv=None):
    """The options of a run; the folder of --init changes the defaults of the network's."""
    parser = Parser(__doc__)
    group = parser.add_argument_group('run')
    group.add_argument('--data_dir', required=True, help='folder with the text: all *.txt in it and below it, UTF-8')
    group.add_argument('--desc', default='pretrained', help='name of the run and its files')
    group.add_argument('--save_dir', default='save/', help='the weights go to DESC/ in here')
    group.add_argument('--log_dir', default='log/', help='DESC.jsonl goes here')
    group.add_argument('--token_dir', default='save/tokens/', help='encoded text is kept here')
    group.add_argument('--resume', action='store_true', help='continue the interrupted run of this --desc')
    group.add_argument('--checkpoint_minutes', type=float, default=5, help='time between checkpoints; 0: every update')
    group.add_argument('--log_every', type=int, default=1000, help='updates between two validations')
    group.add_argument('--seed', type=int, default=42, help='of all generators')
    group.add_argument('--n_proc', type=int, default=os.cpu_count(), help='processes that encode text')
    group = parser.add_argument_group('vocabulary and first weights')
    group.add_argument('--vocab_size', type=int, help='learn a vocabulary of so many tokens, characters included')
    group.add_argument('--encoder_path', help='existing vocabulary (default: encoder_bpe_40000.json in --init)')
    group.add_argument('--bpe_path', help='existing merges (default: vocab_40000.bpe in --init)')
    group.add_argument('--init', dest='model_path', metavar='PATH', help='start from the weights in this folder')
    add_model_args(parser, DEFAULT_CONFIG)
    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=int, default=100, help='epochs')
    group.add_argument('--n_batch', type=int, default=64, help='sequences an update')
    group.add_argument('--micro_batch', type=int, default=8, help='sequences computed at a time, with dropout of their '
                       'own; for the memory there is')
    group.add_argument('--lr', type=float, default=2.5e-4, help='peak learning rate')
    group.add_argument('--n_warmup', type=int, default=2000, help='updates of warm-up, at most a tenth of all; then a '
                       'cosine to zero')
    group.add_argument('--max_grad_norm', type=float, default=1, help='clip to this global norm; -1: do not')
    group.add_argument('--l2', type=float, default=0.01, help='decoupled decay of all but biases and gains')
    add_device_args(parser)
    if parser.parse_known_args(argv)[0].model_path:
        defaults_of_model(parser, argv)
    args = parser.parse_args(argv)
    for name in AT_LEAST_1:
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} {getattr(args, name)}: must be at least 1')
    if args.n_warmup < 0:
        raise ValueError(f'--n_warmup {args.n_warmup}: must be at least 0')
    given = args.model_path or (args.encoder_path and args.bpe_path)
    if bool(args.vocab_size) == bool(given) or args.vocab_size and (args.encoder_path or args.bpe_path):
        raise ValueError('give one vocabulary: --vocab_size to learn it, --encoder_path with --bpe_path, or --init')
    return args if args.vocab_size else finish_paths(args)


def lm_loss(model, tokens, n_targets):
    """Sum of the next-token losses of tokens (N, T+1), divided by n_targets; logits exist only in chunks."""
    we = model.dropped_table()                                         # one draw for lookup and decoding
    ids, targets = tokens[:, :-1], tokens[:, 1:].flatten()
    positions = torch.arange(len(we) - model.n_ctx, len(we) - model.n_ctx + ids.size(1), device=ids.device)
    h = model(torch.stack([ids, positions.expand_as(ids)], dim=-1), we).flatten(0, 1)      # (N * T, C)
    weights = h.new_full((len(h),), 1 / n_targets)
    return fast.WeightedCrossEntropy.apply(h, we, targets, weights)[0]


class Run:
    """One pre-training run. All that changes in it is in `state`, the parameters, the optimizer and the generators, so
    that a checkpoint of these continues it bit for bit.
    """

    def __init__(self, args, tokens, key, n_vocab, device, ctx):
        self.args, self.tokens, self.key, self.device, self.ctx = args, tokens, key, device, ctx
        self.folder = os.path.join(args.save_dir, args.desc)
        self.last_path = os.path.join(self.folder, 'checkpoint.pt')
        self.n_vocab, self.steps = n_vocab, np.arange(args.n_ctx + 1)
        n_sequences = (len(tokens) - 1) // args.n_ctx
        if n_sequences < 2:
            raise ValueError(f'{args.data_dir} has {len(tokens)} tokens, too few for a sequence to train on and one to '
                             f'validate with n_ctx={args.n_ctx}: it could be {(len(tokens) - 1) // 2}')
        self.n_valid = min(max(n_sequences // 100, 1), MAX_VALID)
        self.n_train_tokens = len(tokens) - 1 - self.n_valid * args.n_ctx                  # validation is the end
        self.n_train = self.n_train_tokens // args.n_ctx
        self.per_epoch = max(self.n_train // args.n_batch, 1)
        self.n_total = self.per_epoch * args.n_iter
        set_seed(args.seed)
        self.model = fast.use_fast_dropout(TransformerModel(args, vocab=n_vocab + args.n_ctx, n_ctx=args.n_ctx))
        if args.model_path:
            n_stored = read_shapes(args.model_path)[1][0]
            if n_stored != n_vocab:
                raise ValueError(f'{args.encoder_path} has {n_vocab} tokens, the weights in {args.model_path} are for '
                                 f'{n_stored}: give the vocabulary that they were trained with')
            load_openai_pretrained_model(self.model, n_ctx=args.n_ctx, n_transfer=args.n_layer, path=args.model_path)
        self.model.to(device)
        self.opt = OpenAIAdam(self.model.parameters(), lr=args.lr, schedule='warmup_cosine',
                              warmup=min(args.n_warmup / self.n_total, 0.1), t_total=self.n_total, l2=args.l2,
                              max_grad_norm=args.max_grad_norm)
        self.state = dict(n_updates=0, losses=[], log=[{**vars(args), 'time': time.time()}])
        self.saved_at = time.time()

    def begin(self):
        """Take up the checkpoint with --resume; otherwise make room for a new run without losing an old one."""
        args = self.args
        if args.resume and os.path.isfile(self.last_path):
            self.restore()
        else:
            if os.path.isfile(self.last_path):
                raise ValueError(f'{self.folder} holds an interrupted run: add --resume to continue it, choose another '
                                 '--desc, or delete that folder')
            log_path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
            for path in set_aside([log_path, self.folder]):
                print(f'the files of an earlier run are now in {path}')
        options, *earlier = self.state['log']
        self.logger = ResultLogger(os.path.join(args.log_dir, f'{args.desc}.jsonl'), *earlier, **options)

    def restore(self):
        saved = load_state(self.last_path)                             # generator states stay on the CPU
        now, then = vars(self.args), saved['state']['log'][0]
        changed = [name for name in now if name not in MAY_CHANGE and now[name] != then.get(name)]
        if changed:
            raise ValueError(f'{self.last_path}: the interrupted run had other options: ' + ', '.join(
                f'--{name} {then.get(name)}, now {now[name]}' for name in changed))
        if saved['data'] != self.key:
            raise ValueError(f'{self.last_path}: the interrupted run had another text or vocabulary')
        self.model.load_state_dict(saved['model'])
        self.opt.load_state_dict(saved['opt'])
        self.state = saved['state']
        set_generator_states(saved['generators'])

    def sequences(self, starts, n_tokens):
        """(N, n_ctx + 1): n_ctx tokens and the next one from each start; the text is a ring of n_tokens."""
        places = (np.asarray(starts)[:, None] + self.steps) % n_tokens
        return torch.from_numpy(self.tokens[places].astype(np.int64)).to(self.device)

    def train(self):
        """All updates. The sequences of an epoch begin at another offset each time and come in random order."""
        args, state, order_of = self.args, self.state, None
        bar = tqdm(total=self.n_total, initial=state['n_updates'], ncols=80, disable=None)
        since, n_tokens = time.time(), 0
        while state['n_updates'] < self.n_total:
            epoch, i = divmod(state['n_updates'], self.per_epoch)
            if order_of != epoch:
                rng = np.random.default_rng([args.seed, epoch])
                starts, order_of = rng.integers(args.n_ctx) + args.n_ctx * rng.permutation(self.n_train), epoch
            batch = self.sequences(starts[i * args.n_batch:(i + 1) * args.n_batch], self.n_train_tokens)
            state['losses'].append(self.update(batch))
            state['n_updates'] += 1
            n_tokens += len(batch) * args.n_ctx
            bar.update()
            if state['n_updates'] % args.log_every == 0 or state['n_updates'] == self.n_total:
                tr_loss = self.mean_loss()
                self.log(tr_loss, n_tokens / (time.time() - since))
                since, n_tokens = time.time(), 0
            self.save_or_stop()
        bar.close()

    def update(self, batch):
        """One update from sequences (N, n_ctx + 1), a micro-batch at a time; returns the loss, a tensor."""
        self.model.train()
        losses = []
        for part in batch.split(self.args.micro_batch):
            with self.ctx:
                loss = lm_loss(self.model, part, len(batch) * self.args.n_ctx)
            loss.backward()
            losses.append(loss.detach())
        self.opt.step()
        self.opt.zero_grad()
        return torch.stack(losses).sum()

    def mean_loss(self):
        """Mean of the losses since the last line of the log. Raises ArithmeticError if one of them is not finite."""
        loss = torch.stack(self.state['losses']).mean().item() if self.state['losses'] else 0.
        if not math.isfinite(loss):
            last = f'last checkpoint: {self.last_path}' if os.path.isfile(self.last_path) else 'no checkpoint yet'
            raise ArithmeticError(f'the loss is {loss} by update {self.state["n_updates"]}: lower --lr? {last}')
        return loss

    @torch.no_grad()
    def valid_loss(self):
        """Mean next-token loss of the sequences held out."""
        self.model.eval()
        starts = self.n_train_tokens + self.args.n_ctx * np.arange(self.n_valid)
        n_targets, losses = self.n_valid * self.args.n_ctx, []
        for part in np.array_split(starts, -(-self.n_valid // self.args.micro_batch)):
            with self.ctx:
                losses.append(lm_loss(self.model, self.sequences(part, len(self.tokens)), n_targets))
        return torch.stack(losses).sum().item()

    def log(self, tr_loss, tokens_per_s):
        """Validate, print and log."""
        n_updates, va_loss = self.state['n_updates'], self.valid_loss()
        line = dict(n_epochs=n_updates / self.per_epoch, n_updates=n_updates, tr_loss=tr_loss, va_loss=va_loss,
                    va_ppl=math.exp(va_loss), tokens_per_s=tokens_per_s, time=time.time())
        tqdm.write('{n_epochs:.2f} {n_updates} {tr_loss:.3f} {va_loss:.3f} {va_ppl:.2f} {tokens_per_s:.0f}'
                   .format(**line))
        self.logger.log(**line)
        self.state['log'].append(line)
        self.state['losses'] = []

    def save_or_stop(self):
        """Save a checkpoint when it is time; after a signal save one and raise Stopped."""
        if self.signals.received or time.time() - self.saved_at >= 60 * self.args.checkpoint_minutes:
            self.mean_loss()                                           # a state that is lost is not kept
            save_state(self.last_path, dict(model=self.model.state_dict(), opt=self.opt.state_dict(), data=self.key,
                                            generators=generator_states(), state=self.state))
            self.saved_at = time.time()
        if self.signals.received:
            raise Stopped(self.signals.received, f'stopped after update {self.state["n_updates"]} of {self.n_total}; '
                          'the same command with --resume continues')

    def finish(self):
        """Write the weights, the vocabulary and the network's options, which is all that --model_path needs."""
        args = self.args
        for source, name in ((args.encoder_path, 'encoder_bpe_40000.json'), (args.bpe_path, 'vocab_40000.bpe')):
            with write_whole(os.path.join(self.folder, name), 'wb') as f:
                f.write(Path(source).read_bytes())
        with write_whole(os.path.join(self.folder, 'hparams.json')) as f:
            json.dump({name: getattr(args, name) for name in ('n_embd', 'n_head', 'n_layer', 'n_ctx', 'afn')}, f)
        save_openai_pretrained_model(self.model, self.folder)
        with suppress(FileNotFoundError):
            os.remove(self.last_path)
        print(f'weights and vocabulary: {self.folder}')
        return SimpleNamespace(path=self.folder, log=self.state['log'][1:], model=self.model)


def main(args):
    """Train, or go on; returns the folder of the result, the log and the model."""
    folder = os.path.join(args.save_dir, args.desc)
    if args.model_path and os.path.realpath(args.model_path) == os.path.realpath(folder):
        raise ValueError(f'the result would replace the weights in {args.model_path}, where it starts: choose another '
                         '--desc')
    device, ctx = choose_device(args.device, args.dtype, args.deterministic)
    with ExitStack() as stack:
        for name in (args.log_dir, args.save_dir):
            stack.enter_context(lock(os.path.join(name, f'.{args.desc}.lock')))
        if args.resume and not os.path.isfile(os.path.join(folder, 'checkpoint.pt')) and os.path.isdir(folder):
            print(f'{args.desc} is complete')
            return SimpleNamespace(path=folder, log=None, model=None)
        run = Run(args, *load_tokens(args), device, ctx)
        run.begin()
        with Signals() as run.signals:
            run.train()
        return run.finish()


if __name__ == '__main__':
    run_script(main, parse_args)
