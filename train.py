"""Fine-tune the network on a task: `python train.py --dataset rocstories --submit --analysis`.

Prints after each epoch, as the original does: epoch updates tr_cost va_cost tr_acc va_acc. Interrupted, it goes on with
the same command and --resume. Under torchrun its towers are spread over the processes.
"""

import argparse
import glob
import hashlib
import importlib
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from threading import Thread
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import analysis
import fast
import text_utils
from checkpoint import (
    Signals,
    Stopped,
    environment,
    generator_states,
    load_parameters,
    load_state,
    lock,
    read_config,
    save_state,
    set_aside,
    set_generator_states,
)
from datasets import SPECIAL, TASKS, fit_n_ctx, read_cloze
from device import Ranks, add_device_args, choose_device, memory_of, set_seed
from model_pytorch import (
    DEFAULT_CONFIG,
    HOW_TO_GET,
    N_SHARDS,
    DoubleHeadModel,
    load_openai_pretrained_model,
    open_shards,
    read_shapes,
)
from opt import SCHEDULES, OpenAIAdam
from text_utils import TextEncoder
from utils import (
    Parser,
    ResultLogger,
    add_model_args,
    add_path_args,
    check_options,
    defaults_of_model,
    encode_dataset,
    encode_once,
    finish_paths,
    read_json,
    run_script,
    write_whole,
)

FETCH_EVERY = 20                                        # updates between two looks at losses and signals on a GPU
MAY_CHANGE = ('resume', 'checkpoint_minutes', 'submit', 'analysis', 'submission_dir', 'log_dir', 'data_dir')
EARLY_LOGS = (1000, 2000, 4000, 8000, 16000, 32000)     # updates of the first epoch after which the original logs too


def parse_args(argv=None):
    """The options of a run; those of the task and of the model folder change the defaults."""
    parser = Parser(__doc__)
    group = parser.add_argument_group('run')
    group.add_argument('--dataset', default='rocstories', choices=TASKS, help='task; sample needs no download')
    group.add_argument('--desc', help='name of the run and its files (default: the dataset)')
    group.add_argument('--data_dir', default='data/', help='folder with the files of the task')
    group.add_argument('--log_dir', default='log/', help='DESC.jsonl goes here')
    group.add_argument('--save_dir', default='save/', help='DESC/best_params.pt goes here')
    group.add_argument('--submission_dir', default='submission/', help='predictions for the test file go here')
    group.add_argument('--submit', action='store_true', help='predict the test file with the best parameters')
    group.add_argument('--analysis', action='store_true', help='print the two accuracies (implies --submit)')
    group.add_argument('--predict', metavar='FILE', help='no training: load save/DESC and write predictions with '
                       'probabilities for the stories in FILE')
    group.add_argument('--resume', action='store_true', help='continue the interrupted run of this --desc')
    group.add_argument('--checkpoint_minutes', type=float, default=5, help='time between checkpoints; 0: every update')
    group.add_argument('--seed', type=int, default=42, help='of all generators')
    group.add_argument('--seeds', type=seed_list, help='several runs with one encoding, each with files of its own, '
                       'DESC-SEED: 42-51, or 1,2,5')
    group.add_argument('--n_valid', type=int, default=374, help='stories set aside for validation')
    add_path_args(parser)
    add_model_args(parser, DEFAULT_CONFIG)
    group = parser.add_argument_group('training')
    group.add_argument('--n_transfer', type=int, default=12, help='blocks taken from the released weights; '
                       '-1: nothing, not even the embeddings')
    group.add_argument('--clf_pdrop', type=float, default=DEFAULT_CONFIG.clf_pdrop, help='dropout of the classifier')
    group.add_argument('--lm_coef', type=float, default=0.5, help='weight of the language-model loss')
    group.add_argument('--n_iter', type=int, default=3, help='epochs')
    group.add_argument('--n_batch', type=int, default=8, help='examples a tower')
    group.add_argument('--n_gpu', type=int, default=4, help='towers: an update takes n_batch * n_gpu examples, on one '
                       'device one tower after the other')
    group.add_argument('--opt', default='adam', choices=['adam'], help='optimizer')
    group.add_argument('--lr', type=float, default=6.25e-5, help='peak learning rate')
    group.add_argument('--lr_warmup', type=float, default=0.002, help='fraction of the updates for the warm-up')
    group.add_argument('--lr_schedule', default='warmup_linear', choices=SCHEDULES, help='rate over time')
    group.add_argument('--max_grad_norm', type=float, default=1, help='clip to this global norm; -1: do not')
    group.add_argument('--b1', type=float, default=0.9, help="Adam's first decay rate")
    group.add_argument('--b2', type=float, default=0.999, help="Adam's second decay rate")
    group.add_argument('--e', type=float, default=1e-8, help="Adam's epsilon")
    group.add_argument('--l2', type=float, default=0.01, help='decoupled weight decay')
    group.add_argument('--vector_l2', action='store_true', help='decay biases and gains too')
    add_device_args(parser)
    parser.set_defaults(**TASKS[parser.parse_known_args(argv)[0].dataset].defaults)
    defaults_of_model(parser, argv)
    args = finish_paths(parser.parse_args(argv))
    args.desc = args.desc or args.dataset
    args.submit |= args.analysis
    return args


def seed_list(text):
    """'1,42-44' -> [1, 42, 43, 44]"""
    seeds = []
    for part in text.split(','):
        first, _, last = part.partition('-')
        seeds += range(int(first), int(last or first) + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError
    return seeds


def load_encoder(encoder_path, bpe_path):
    """The text encoder, with the special tokens in its vocabulary, and the number of tokens without them."""
    for path in (encoder_path, bpe_path):
        if not os.path.isfile(path):
            raise FileNotFoundError(f'{path} is missing, or is not a file: {HOW_TO_GET}')
    text_encoder = TextEncoder(encoder_path, bpe_path)
    n_vocab = len(text_encoder.encoder)
    for token in SPECIAL:
        if token in text_encoder.encoder:
            raise ValueError(f'{encoder_path} has a token {token}, which is to be added to it')
        text_encoder.encoder[token] = len(text_encoder.encoder)
    return text_encoder, n_vocab


def load_data(args, task):
    """Encode and pack the splits of the task; a namespace with train, valid and test arrays and what they imply."""
    text_encoder, n_vocab = load_encoder(args.encoder_path, args.bpe_path)
    encoder, files = text_encoder.encoder, dict(vocabulary=[args.encoder_path], merges=[args.bpe_path])
    if args.n_transfer != -1:
        shapes = read_shapes(args.model_path)
        open_shards(args.model_path, sum(map(math.prod, shapes)))      # only to say at once what is wrong with them
        n_stored = shapes[1][0]
        if n_stored != n_vocab:
            raise ValueError(f'{args.encoder_path} has {n_vocab} tokens, the weights in {args.model_path} are for '
                             f'{n_stored}: they do not belong together')
        files['weights'] = [os.path.join(args.model_path, f'params_{i}.npy') for i in range(N_SHARDS)]
    with ThreadPoolExecutor(1) as background:
        known = background.submit(environment, **files)                # hashes the weights meanwhile
        splits = task.load(args.data_dir, n_valid=args.n_valid)
    warnings = labels_and_overlap(*splits)
    texts = hashlib.sha256(json.dumps(splits).encode()).hexdigest()
    splits = encode_once(*splits, encoder=text_encoder, files=(args.encoder_path, args.bpe_path, text_utils.__file__),
                         folder=os.path.join(args.save_dir, '.encoded'))
    n_ctx, max_len, n_cut = fit_n_ctx([split[:3] for split in splits], args.n_ctx)
    if n_cut:
        warnings.append(f'{n_cut} stories are longer than n_ctx={args.n_ctx} allows: their fields are cut to '
                        f'{max_len} tokens')
    packed = [[torch.from_numpy(array) for array in task.pack(*split[:3], encoder, max_len, n_ctx)] for split in splits]
    labels = [torch.tensor(split[3]) for split in splits[:2]]
    digest = hashlib.sha256(b''.join(t.numpy().tobytes() for t in (*packed[0], *labels, *packed[1], *packed[2])))
    return SimpleNamespace(train=(*packed[0], labels[0]), valid=(*packed[1], labels[1]), test=packed[2],
                           n_vocab=n_vocab, n_ctx=n_ctx, max_len=max_len, clf_token=encoder['_classify_'],
                           digest=digest.hexdigest(), warnings=warnings,
                           environment=dict(known.result(), texts=texts, ids=digest.hexdigest()))


def labels_and_overlap(train, valid, test):
    """What would make the accuracies of these splits mean little, a sentence each."""
    warnings = [f'all {len(split[3])} {name} stories have the same label'
                for name, split in (('training', train), ('validation', valid)) if len(set(split[3])) == 1]
    known = {*train[0], *valid[0]}
    n_known = sum(story in known for story in test[0])
    if n_known:
        warnings.append(f'{n_known} of {len(test[0])} test stories are training or validation stories too')
    return warnings


def build_model(args, task, n_vocab, n_ctx, clf_token):
    """The network for a task, with fresh weights."""
    return DoubleHeadModel(args, clf_token, task.head, vocab=n_vocab + len(SPECIAL) + n_ctx, n_ctx=n_ctx)


def needed_memory(args, data, n_batch):
    """Bytes, about, that a training step of n_batch examples takes.

    Parameters, their gradients and Adam's two moments; three more tables for the embedding dropout and the decoder's
    gradient; and for each real token, in each block, 31 times n_embd numbers (measured at full size; where dropout
    keeps no masks, see `fast.Dropout`, a quarter less).
    """
    table = (data.n_vocab + len(SPECIAL) + data.n_ctx) * args.n_embd
    n_rows = n_batch * float(data.train[1].sum()) / len(data.train[1])
    blocks = args.n_layer * args.n_embd
    return 4 * (4 * (table + 12 * blocks * args.n_embd) + 3 * table + 31 * n_rows * blocks)


def check_memory(args, data, device):
    """Raise ValueError, before anything is computed, if the device cannot hold a training step."""
    there = memory_of(device)
    if needed_memory(args, data, args.n_batch) <= there:
        return
    total = args.n_batch * args.n_gpu
    fitting = [g for g in range(args.n_gpu, total + 1)
               if total % g == 0 and needed_memory(args, data, total // g) <= there]
    advice = (f'--n_batch {total // fitting[0]} --n_gpu {fitting[0]} is the same training and fits' if fitting
              else 'even one example at a time does not fit')
    raise ValueError(f'--n_batch {args.n_batch} needs about {needed_memory(args, data, args.n_batch) / 2**30:.1f} GiB, '
                     f'{device} has {there / 2**30:.1f} GiB: {advice}')


class Losses(nn.Module):
    """The losses of a training step as a module, which DistributedDataParallel can wrap; sets the model's dropout to
    `fast.Dropout`."""

    def __init__(self, model, lm_coef):
        super().__init__()
        self.model, self.lm_coef = fast.use_fast_dropout(model), lm_coef

    def forward(self, X, M, Y):
        return fast.double_head_losses(self.model, X, M, Y, self.lm_coef)


def update(runner, opt, batch, n_towers, ctx):
    """One update from a batch (X, M, Y) cut into towers, which are computed one after the other.

    Returns the mean losses, (classification, language model), as a tensor (2,); the second is NaN without lm_coef.
    """
    runner.train()
    losses = []
    for i, tower in enumerate(zip(*(t.chunk(n_towers) for t in batch), strict=True)):
        exchange = i + 1 == n_towers or not isinstance(runner, DistributedDataParallel)
        with nullcontext() if exchange else runner.no_sync():          # gradients are exchanged once per update
            with ctx:
                loss, clf_losses, lm_losses = runner(*tower)
            (loss / n_towers).backward()
        clf_loss = clf_losses.detach().mean()
        losses.append(torch.stack([clf_loss, clf_loss * torch.nan if lm_losses is None else lm_losses.mean()]))
    opt.step()
    opt.zero_grad()
    return torch.stack(losses).mean(0)


def evaluate(model, X, M, n_batch, ctx, ranks, stop=lambda: None):
    """Task logits (N, K) of all examples in evaluation mode; batches are spread over the processes.

    stop: called between batches, to raise if the run is to end.
    """
    model.eval()
    logits = torch.zeros(X.shape[:2], device=next(model.parameters()).device)
    order = M.sum(-1).amax(-1).argsort()                               # like lengths together: less padding
    starts = range(ranks.rank * n_batch, len(X), ranks.size * n_batch)
    with ctx:
        for i in tqdm(starts, desc='evaluating', ncols=80, leave=False, disable=None):
            stop()
            batch = order[i:i + n_batch]
            logits[batch] = fast.choice_logits(model, X[batch], M[batch]).float()
    return ranks.sum(logits).cpu()                                     # zeros, but for one process each


def cost_and_accuracy(logits, Y):
    """Mean of the per-example losses, in nats, and accuracy, in percent."""
    return F.cross_entropy(logits, Y).item(), (logits.argmax(1) == Y).float().mean().item() * 100


class Run:
    """One fine-tuning run. All that changes in it is in `state`, the parameters, the optimizer and the generators, so
    that a checkpoint of these continues it bit for bit.
    """

    def __init__(self, args, task, data, device, ctx, ranks):
        self.args, self.task, self.data, self.device, self.ctx, self.ranks = args, task, data, device, ctx, ranks
        self.log_path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
        self.folder = os.path.join(args.save_dir, args.desc)
        self.best_path = os.path.join(self.folder, 'best_params.pt')
        self.last_path = os.path.join(self.folder, 'checkpoint.pt')
        self.results_path = os.path.join(self.folder, 'results.json')
        self.n_batch_train = args.n_batch * args.n_gpu
        self.per_epoch = len(data.train[0]) // self.n_batch_train
        if self.per_epoch == 0:
            raise ValueError(f'{len(data.train[0])} training examples do not fill one batch of '
                             f'--n_batch {args.n_batch} x --n_gpu {args.n_gpu}')
        check_memory(args, data, device)
        dynamo = Thread(target=importlib.import_module, args=['torch._dynamo'])     # a second; torch's Adam wants it
        dynamo.start()
        set_seed(args.seed)
        self.model = build_model(args, task, data.n_vocab, data.n_ctx, data.clf_token)
        load_openai_pretrained_model(self.model, n_ctx=data.n_ctx, n_special=len(SPECIAL), n_transfer=args.n_transfer,
                                     path=args.model_path)
        dynamo.join()                                                  # what follows imports too
        self.model.to(device)
        self.runner = Losses(self.model, args.lm_coef)
        if ranks.size > 1:
            self.runner = DistributedDataParallel(self.runner)
            torch.manual_seed(args.seed + ranks.rank)                  # every process draws its own dropout
        self.opt = OpenAIAdam(self.model.parameters(), lr=args.lr, schedule=args.lr_schedule, warmup=args.lr_warmup,
                              t_total=self.per_epoch * args.n_iter, b1=args.b1, b2=args.b2, e=args.e, l2=args.l2,
                              vector_l2=args.vector_l2, max_grad_norm=args.max_grad_norm)
        name = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
        options = {**vars(args), 'environment': {**data.environment, 'device': name, 'processes': ranks.size},
                   'time': time.time()}
        self.state = dict(n_updates=0, n_epochs=0, n_logged=0, best_score=-1., best_epoch=0, order=None, losses=[],
                          log=[options], seconds=0.)
        self.pending = []                                              # losses not yet fetched from the device
        self.started = self.saved_at = time.time()

    def begin(self):
        """Take up the checkpoint with --resume; otherwise make room for a new run without losing an old one."""
        if self.args.resume and os.path.lexists(self.last_path):
            self.restore()
        elif self.ranks.rank == 0:
            if os.path.isfile(self.last_path) and not os.path.isfile(self.results_path):
                raise ValueError(f'{self.folder} holds an interrupted run: add --resume to continue it, choose another '
                                 '--desc, or delete that folder')
            for path in set_aside([self.log_path, analysis.test_path(self.log_path), self.folder]):
                print(f'the files of an earlier run are now in {path}')
        if self.ranks.rank == 0:
            for stem in (self.log_path, self.folder + os.sep):
                for path in glob.glob(f'{glob.escape(stem)}*.part'):   # what a kill left half written
                    os.remove(path)
            options, *earlier = self.state['log']
            self.logger = ResultLogger(self.log_path, *earlier, **options)
            config = dict(options=vars(self.args), n_vocab=self.data.n_vocab, n_ctx=self.data.n_ctx,
                          max_len=self.data.max_len, clf_token=self.data.clf_token)
            with write_whole(os.path.join(self.folder, 'config.json')) as f:
                json.dump(config, f, indent=1)

    def train(self):
        """All epochs: shuffle, update, evaluate."""
        args, state = self.args, self.state
        X, M, Y = self.data.train
        fetch_every = 1 if self.device.type == 'cpu' or args.checkpoint_minutes == 0 else FETCH_EVERY
        for epoch in range(state['n_epochs'], args.n_iter):
            if state['order'] is None:
                order = np.arange(len(Y))
                np.random.shuffle(order)                               # as scikit-learn's shuffle: same batches
                state['order'] = torch.from_numpy(order)
            done = state['n_updates'] - epoch * self.per_epoch
            bar = tqdm(total=self.per_epoch, initial=done, desc=f'epoch {epoch + 1}/{args.n_iter}', ncols=80,
                       leave=False, disable=None if self.ranks.rank == 0 else True)
            for i in range(done, self.per_epoch):
                self.log_early()
                batch = state['order'][i * self.n_batch_train:(i + 1) * self.n_batch_train]
                mine = batch.chunk(self.ranks.size)[self.ranks.rank]
                losses = update(self.runner, self.opt, (X[mine], M[mine], Y[mine]), args.n_gpu // self.ranks.size,
                                self.ctx)
                state['n_updates'] += 1
                self.pending.append(losses)
                bar.update()
                if len(self.pending) == fetch_every:                   # between, a GPU is not waited for
                    self.fetch_losses()
                    bar.set_postfix(loss=f'{state["losses"][-1][0]:.3f}')
                    self.save_or_stop()
            bar.close()
            self.log_early()
            self.log(epoch + 1)
            state['n_epochs'], state['order'] = epoch + 1, None

    def fetch_losses(self):
        """Bring pending losses to the host; a loss that is not finite ends the run."""
        if not self.pending:
            return
        losses = self.ranks.sum(torch.stack(self.pending)) / self.ranks.size
        self.pending = []
        for clf_loss, lm_loss in losses.tolist():
            n = len(self.state['losses'])
            if not np.isfinite(clf_loss) or (self.args.lm_coef and not np.isfinite(lm_loss)):
                epoch, batch = divmod(n, self.per_epoch)
                last = f'last checkpoint: {self.last_path}' if os.path.isfile(self.last_path) else 'no checkpoint yet'
                raise ArithmeticError(f'the loss of update {n + 1} (epoch {epoch + 1}, batch {batch + 1}) is '
                                      f'{clf_loss} (classification), {lm_loss} (language model): lower --lr? {last}')
            self.state['losses'].append([clf_loss, lm_loss if self.args.lm_coef else None])

    def log_early(self):
        """The original also logs within a long first epoch."""
        n = self.state['n_updates']
        if n in EARLY_LOGS and self.state['n_epochs'] == 0 and n > self.state['n_logged']:
            self.log(0)

    def log(self, n_epochs):
        """Evaluate, print and log; keep the parameters if they are the best so far on the validation stories."""
        state, n_valid = self.state, len(self.data.valid[2])
        self.fetch_losses()
        stop = self.save_or_stop if self.ranks.size == 1 else lambda: None
        costs = []
        for X, M, Y in ([t[:n_valid] for t in self.data.train], self.data.valid):
            logits = evaluate(self.model, X, M, self.n_batch_train, self.ctx, self.ranks, stop)
            costs.append(cost_and_accuracy(logits, Y))
        (tr_cost, tr_acc), (va_cost, va_acc) = costs
        line = dict(n_epochs=n_epochs, n_updates=state['n_updates'], tr_cost=tr_cost, va_cost=va_cost, tr_acc=tr_acc,
                    va_acc=va_acc, time=time.time())
        best = va_acc > state['best_score']
        if self.ranks.rank == 0:
            if best:
                save_state(self.best_path, self.model.state_dict())
            self.logger.log(**line)
            print(f'{n_epochs} {state["n_updates"]} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}', flush=True)
        state['log'].append(line)
        state['n_logged'] = state['n_updates']
        if best:
            state['best_score'], state['best_epoch'] = va_acc, n_epochs

    def save_or_stop(self):
        """Save a checkpoint when it is time; after a signal save one and raise Stopped. All processes do the same."""
        due = time.time() - self.saved_at >= 60 * self.args.checkpoint_minutes
        agreed = self.ranks.largest(2 * self.signals.received + due, self.device)
        if agreed:
            self.checkpoint()
        if agreed > 1:
            raise Stopped(agreed // 2, f'stopped after update {self.state["n_updates"]} of '
                          f'{self.per_epoch * self.args.n_iter}; the same command with --resume continues')

    def checkpoint(self):
        self.fetch_losses()
        generators = self.ranks.gather(generator_states())
        if self.ranks.rank == 0:
            seconds = self.state['seconds'] + time.time() - self.started
            save_state(self.last_path, dict(model=self.model.state_dict(), opt=self.opt.state_dict(),
                                            generators=generators, data=self.data.digest,
                                            state={**self.state, 'seconds': seconds}))
        self.saved_at = time.time()

    def restore(self):
        saved = load_state(self.last_path)                             # generator states stay on the CPU
        if not isinstance(saved, dict) or set(saved) != {'model', 'opt', 'generators', 'data', 'state'}:
            raise ValueError(f'{self.last_path} is no checkpoint of a run')
        refuse_other_options(self.args, saved['state']['log'][0], self.last_path)
        if saved['data'] != self.data.digest:
            raise ValueError(f'{self.last_path}: the interrupted run had other stories or another vocabulary')
        if len(saved['generators']) != self.ranks.size:
            raise ValueError(f'{self.last_path}: the interrupted run had {len(saved["generators"])} processes, '
                             f'this one has {self.ranks.size}')
        load_parameters(self.model, saved['model'], self.last_path)
        self.opt.load_state_dict(saved['opt'])
        self.state = saved['state']
        set_generator_states(saved['generators'][self.ranks.rank])

    def finish(self):
        """Predict the test file with the best parameters; write and return the results of the run."""
        args, state = self.args, self.state
        results = dict(desc=args.desc, options=vars(args), n_ctx=self.data.n_ctx, n_updates=state['n_updates'],
                       log=state['log'][1:], losses=state['losses'], best_epoch=state['best_epoch'],
                       valid_accuracy=state['best_score'], test_accuracy=None, test_logits=None,
                       log_path=self.log_path, best_path=self.best_path)
        if args.submit:
            self.model.load_state_dict(load_state(self.best_path, self.device))
            logits = evaluate(self.model, *self.data.test, self.n_batch_train, self.ctx, self.ranks)
            results['test_logits'] = logits.tolist()
            results['submission'] = os.path.join(args.submission_dir, self.task.filename)
        if self.ranks.rank == 0:
            if args.submit:
                write_predictions(results['submission'], self.task.predict(logits.numpy()))
            if args.analysis:
                results['test_accuracy'] = analysis.rocstories(args.data_dir, results['submission'], self.log_path)[1]
            if results['test_accuracy'] is not None:
                wrong, _ = analysis.wrong_stories(args.data_dir, results['submission'])
                with write_whole(analysis.test_path(self.log_path)) as f:
                    json.dump(dict(test_acc=results['test_accuracy'], wrong=wrong), f)
            results['seconds'] = state['seconds'] + time.time() - self.started
            with write_whole(self.results_path) as f:
                json.dump(results, f)
            with suppress(FileNotFoundError):
                os.remove(self.last_path)
            print_summary(results)
        return SimpleNamespace(**results)


def write_predictions(path, predictions, probabilities=None):
    """index<TAB>prediction, as in the original; and the probability of each choice, where given."""
    columns = [] if probabilities is None else [f'p{k}' for k in range(probabilities.shape[1])]
    with write_whole(path) as f:
        f.write('\t'.join(['index', 'prediction', *columns]) + '\n')
        for i, prediction in enumerate(predictions):
            numbers = [] if probabilities is None else [f'{p:.6f}' for p in probabilities[i]]
            f.write('\t'.join([str(i), str(prediction), *numbers]) + '\n')


def print_summary(results):
    minutes, seconds = divmod(round(results['seconds']), 60)
    print(f'{results["n_updates"]} updates in {minutes} min {seconds} s; best on validation: '
          f'{results["valid_accuracy"]:.2f} after epoch {results["best_epoch"]}')
    for what, key in (('log', 'log_path'), ('parameters', 'best_path'), ('predictions', 'submission')):
        if key in results:
            print(f'{what}: {results[key]}')


def refuse_other_options(args, then, path):
    """Raise ValueError where an earlier run, whose options `path` holds, cannot be continued with `args`."""
    changed = [name for name, value in vars(args).items() if name not in MAY_CHANGE and value != then.get(name)]
    if changed:
        raise ValueError(f'{path}: the run to resume had other options: ' + ', '.join(
            f'--{name} {then.get(name)}, now {vars(args)[name]}' for name in changed))


def fine_tune(args, task, data, device, ctx, ranks):
    """One run, or what is left of it; returns its results."""
    run = Run(args, task, data, device, ctx, ranks)
    with ExitStack() as stack:
        stack.callback(vars(run).pop, 'runner')                        # for Ranks.leave; a traceback may hold the run
        if ranks.rank == 0:
            for folder in {os.path.realpath(folder) for folder in (args.log_dir, args.save_dir)}:
                stack.enter_context(lock(os.path.join(folder, f'.{args.desc}.lock')))
        if args.resume and os.path.lexists(run.results_path):
            results = read_json(run.results_path)
            refuse_other_options(args, results.get('options', {}), run.results_path)
            if ranks.rank == 0:
                print(f'{args.desc} is complete')
                print_summary(results)
            return SimpleNamespace(**results)
        run.begin()
        with Signals() as run.signals:
            run.train()
            run.checkpoint()
        return run.finish()


def predict(args, task, device, ctx, ranks):
    """Load save/DESC and write predictions with probabilities for the stories of one file, labelled or not."""
    folder = os.path.join(args.save_dir, args.desc)
    config = read_config(folder)
    then = argparse.Namespace(**config['options'])
    stories, *endings, labels = read_cloze(args.predict)
    text_encoder, n_vocab = load_encoder(then.encoder_path, then.bpe_path)
    if n_vocab != config['n_vocab']:
        raise ValueError(f'{then.encoder_path} has {n_vocab} tokens, the run had {config["n_vocab"]}')
    [fields] = encode_dataset([stories, *endings], encoder=text_encoder)
    n_ctx, max_len = config['n_ctx'], config['max_len']
    rooms = [n_ctx - 3 - max(len(ending[:max_len]) for ending in both) for both in zip(*fields[1:], strict=True)]
    n_cut = sum(len(story) > min(room, max_len) for story, room in zip(fields[0], rooms, strict=True))
    if n_cut:
        print(f'{n_cut} stories are longer than the n_ctx={n_ctx} of the run: their ends are cut off')
    fields[0] = [story[:max(room, 0)] for story, room in zip(fields[0], rooms, strict=True)]
    packed = task.pack(*fields, text_encoder.encoder, min(max_len, n_ctx - 3), n_ctx)
    X, M = (torch.from_numpy(array) for array in packed)
    model = build_model(then, task, config['n_vocab'], n_ctx, config['clf_token'])
    best_path = os.path.join(folder, 'best_params.pt')
    load_parameters(model, load_state(best_path), best_path)
    logits = evaluate(model.to(device), X, M, args.n_batch * args.n_gpu, ctx, ranks)
    stem = os.path.splitext(os.path.basename(args.predict))[0]
    path = os.path.join(args.submission_dir, f'{args.desc}-{stem}.tsv')
    write_predictions(path, task.predict(logits.numpy()), logits.softmax(1).numpy())
    accuracy = None if labels is None else cost_and_accuracy(logits, torch.tensor(labels))[1]
    print(f'predictions: {path}' + ('' if labels is None else f'; accuracy {accuracy:.2f}'))
    return SimpleNamespace(path=path, logits=logits, accuracy=accuracy)


def of_seed(args, seed):
    """The options of one run of --seeds: what --seed and --desc alone would have given."""
    desc = f'{args.desc}-{seed}'
    return argparse.Namespace(**{**vars(args), 'seeds': None, 'seed': seed, 'desc': desc,
                                 'submission_dir': os.path.join(args.submission_dir, desc)})


def main(args):
    """Train, or predict with --predict; returns the results, a list of them with --seeds."""
    check_options(args)
    task, ranks = TASKS[args.dataset], Ranks()
    if args.n_gpu % ranks.size:
        raise ValueError(f'{ranks.size} processes cannot share --n_gpu {args.n_gpu} towers equally')
    device, ctx = choose_device(ranks.device(args.device), args.dtype, args.deterministic)
    if args.predict:
        return predict(args, task, device, ctx, ranks)
    ranks.join(device)
    try:
        data = load_data(args, task)
        for warning in data.warnings if ranks.rank == 0 else ():
            print(f'warning: {warning}')
        if args.seeds is None:
            return fine_tune(args, task, data, device, ctx, ranks)
        runs = [fine_tune(of_seed(args, seed), task, data, device, ctx, ranks) for seed in args.seeds]
        if ranks.rank == 0:
            for kind in ('valid', 'test'):
                print(f'{kind} accuracy: {analysis.describe([getattr(run, kind + "_accuracy") for run in runs])}')
        return runs
    finally:
        ranks.leave()


if __name__ == '__main__':
    run_script(main, parse_args)
