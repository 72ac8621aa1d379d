"""Fine-tune the network on a task: `python train.py --dataset rocstories --submit --analysis`.

Prints after each epoch, as the original does: epoch updates tr_cost va_cost tr_acc va_acc. Ctrl-C saves a checkpoint
first, and the same command with --resume goes on. Under torchrun the towers are spread over the processes.
"""

import os

from common import options
from common.options import INCIDENTAL, Parser, finish_paths, number, seed_list, take_defaults_of_model, warmup_of
from common.shell import begin_script, printable, run_script
from tasks import TASKS, own
from tasks.stories import N_VALID


def parse_args(argv=None):
    """The options of a fine-tuning run. --dataset, and hparams.json in the model folder, change defaults."""
    parser = Parser('train.py', __doc__)
    defaults = {**{name: task.defaults for name, task in TASKS.items()}, 'own': own.DEFAULTS}
    group = parser.add_argument_group('data')
    group.add_argument('--dataset', default='rocstories', choices=defaults, metavar='NAME', help='task: '
                       f'{", ".join(defaults)}; sample and sample-... need no download, own is any file of examples. '
                       'Defaults differ by task, above all n_batch and n_gpu: --dataset NAME --help shows them')
    group.add_argument('--data_dir', default='data/', metavar='FOLDER', help='the files of the task')
    group.add_argument('--n_valid', type=number(int, 1), default=N_VALID, help='examples set aside for validation, '
                       'where the task has no file of them')
    own.add_options(parser)
    group = options.add_run_args(parser, ' (default: that of --dataset)')
    group.add_argument('--seeds', type=seed_list, metavar='LIST', help='several runs, each with files of its own, '
                       'DESC-SEED: 42-51, or 1,2,5')
    group.add_argument('--submit', action='store_true', help='predict the test file with the best parameters; the '
                       'file has the name that is usual for the task')
    group.add_argument('--analysis', action='store_true', help='print the scores of the best parameters on the '
                       'validation and test examples (implies --submit)')
    group.add_argument('--predict', metavar='FILE', help='no training: load the run --desc and write predictions with '
                       'probabilities for the examples in FILE')
    group = options.add_training_args(parser, n_iter=3, lr=6.25e-5, lr_warmup=0.002, epochs=number(int, 1))
    group.add_argument('--n_batch', type=number(int, 1), default=8, help='examples in a tower: one forward pass, with '
                       'dropout of its own')
    group.add_argument('--n_gpu', type=number(int, 1), default=4, help='towers: an update takes n_batch * n_gpu '
                       'examples; one device computes one tower after the other')
    group.add_argument('--lr_schedule', default='warmup_linear', help='learning rate over time',
                       choices=['warmup_cosine', 'warmup_constant', 'warmup_linear'])
    group.add_argument('--lm_coef', type=number(float, 0), default=0.5, help='weight of the language-model loss')
    group.add_argument('--opt', default='adam', choices=['adam'], help='optimizer')
    group.add_argument('--b1', type=number(float, 0, 1), default=0.9, help="Adam's first decay rate")
    group.add_argument('--b2', type=number(float, 0, 1), default=0.999, help="Adam's second decay rate")
    group.add_argument('--e', type=number(float, 0), default=1e-8, help="Adam's epsilon")
    group = options.add_network_args(parser, 'model/', 'the weights to start from, in the released layout')
    group.add_argument('--n_transfer', type=number(int, -1), default=12, help='blocks taken from these weights; -1: '
                       'nothing, not even the embeddings')
    group = options.add_regularisation_args(parser)
    group.add_argument('--clf_pdrop', type=number(float, 0, 1), default=0.1, help='dropout rate of the classifier')
    group.add_argument('--vector_l2', action='store_true', help='weight decay of biases and gains too')
    group = options.add_computing_args(parser)
    group.add_argument('--plain', action='store_true', help='compute with model_pytorch.py and loss.py as they are '
                       'written, not with the faster equivalents of fast.py')
    group = options.add_files_args(parser)
    group.add_argument('--submission_dir', default='submission/', metavar='FOLDER', help='predictions go here')
    # the command line wins over hparams.json in the model folder, that over the task, and the task over the original
    given = parser.read(argv)
    parser.set_defaults(**defaults[given.get('dataset', 'rocstories')])
    released = os.path.join(parser.get_default('model_path'), 'params_shapes.json')
    if given.get('dataset') == 'own' and not os.path.exists(released):
        parser.set_defaults(model_path='model/books/')  # the small network of this repository, without a download
    take_defaults_of_model(parser, given)
    args = parser.complete(given)
    if args.n_embd % args.n_head:
        raise ValueError(f'n_embd={args.n_embd} cannot be split into n_head={args.n_head} equal heads')
    args.desc = args.desc or args.dataset
    if args.predict:
        options.refuse_options(given, ('seeds',), 'with --predict: --desc names one run')
    own.check_options(args)
    args.submit |= args.analysis
    return args if args.predict else finish_paths(args)


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import hashlib
import math
import shlex
from argparse import Namespace
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

import analysis
import fast
from common.checkpoint import Run, environment, load_state, save_state
from common.device import NO_SCALING, Ranks, device_of, grad_scaler, set_seed, update_by_parts
from common.examples import SPECIAL, Examples, encode_texts, fit_n_ctx, hash_ids, hash_texts, unfamiliar
from common.predict import evaluate, predict, scores_of, standardised, write_predictions
from common.trained import add_special, hash_model, shapes_for
from common.workers import progress
from loss import MultipleChoiceLossCompute, task_losses, train_loss
from model_pytorch import DoubleHeadModel, load_openai_pretrained_model, open_release, pieces
from opt import OpenAIAdam
from tasks.baseline import N_BEFORE, tfidf_score
from tasks.metrics import is_constant, trivial_score
from text_utils import TextEncoder
from utils import check_file, sha256, write_sealed

MAX_LOGITS = 2 ** 20  # of the test, in results.json, which is read up to 32 MiB
FETCH_EVERY = 20  # updates between two looks at losses and signals on a GPU
TABLE = ('transformer.embed.weight', 'lm_head.decoder.weight')  # one tensor: tokens, special tokens, positions
EARLY_LOGS = (1000, 2000, 4000, 8000, 16000, 32000)  # updates of the first epoch after which the original logs too


class Data(NamedTuple):
    """The examples of a task as ids, and what follows from them."""
    train: Examples
    valid: Examples
    test: Examples | None
    parts: list  # for each of these three {name: slice}, see Split
    scale: tuple | None  # mean and deviation of the training numbers; None: there are classes
    n_vocab: int
    n_ctx: int  # tokens of the longest sequence; args.n_ctx is the limit
    positions: torch.Tensor  # (up to --n_ctx, n_embd)  those after n_ctx in the weights, for longer texts later
    clf_token: int
    per_epoch: int  # updates
    hashes: dict
    digest: str  # of all that must be the same to resume
    trivial: float  # score of the best constant answer on the validation examples
    tfidf: float | None  # own data: what a linear model on TF-IDF scores on the validation examples
    warnings: list


def load_data(args, train_rows=None):
    """The task of --dataset, and its `Data`. train_rows: see own.load."""
    text_encoder = TextEncoder(args.encoder_path, args.bpe_path)
    if args.n_transfer < 0:  # no weights are loaded
        hashes = dict(vocabulary=sha256(args.encoder_path), merges=sha256(args.bpe_path))
    else:
        shapes_for(args.model_path, args.encoder_path, text_encoder.n_vocab)
        hashes = hash_model(args.model_path, args.encoder_path, args.bpe_path)
    task = TASKS.get(args.dataset)
    task, splits = (task, task.load(args)) if task else own.load(args, train_rows)
    return task, encode_splits(args, task, [split for split in splits if split is not None], text_encoder, hashes)


def encode_splits(args, task, splits, text_encoder, hashes) -> Data:
    """Training, validation and, if there are any, test examples as ids. hashes: of vocabulary and weights."""
    texts, n_fields = [field for split in splits for field in split.texts], len(splits[0].texts)
    ids = encode_texts(texts, text_encoder)
    hashes = dict(hashes, texts=hash_texts(texts).hexdigest(), ids=hash_ids(ids).hexdigest())
    fields = [ids[i:i + n_fields] for i in range(0, len(ids), n_fields)]  # of train, valid, test
    n_ctx, max_len, _ = fit_n_ctx(fields, args.n_ctx, task.form)
    scale = None if task.classes else scale_of(splits[0].labels)
    encoder = add_special(text_encoder)
    examples = [Examples(task.form, of_split, standardised(split.labels, scale), encoder, n_ctx, max_len)
                for of_split, split in zip(fields, splits, strict=True)]
    n_train, n_batch = len(examples[0]), args.n_batch * args.n_gpu
    if n_train < n_batch:
        raise ValueError(f'{n_train} training examples do not fill one batch of --n_batch {args.n_batch} x --n_gpu '
                         f'{args.n_gpu}')
    what = [n_ctx, hashes, [split.labels for split in splits], *([task.classes] if args.dataset == 'own' else ())]
    digest = hashlib.sha256(repr(what).encode()).hexdigest()
    train, valid, test = [*examples, None][:3]
    return Data(train, valid, test, parts=[split.parts for split in splits], scale=scale, hashes=hashes, digest=digest,
                n_vocab=text_encoder.n_vocab, n_ctx=n_ctx, positions=later_positions(args, n_ctx),
                clf_token=encoder['_classify_'], per_epoch=n_train // n_batch,
                trivial=trivial_score(task.metrics[0], valid.labels, len(task.classes), task.positive),
                tfidf=tfidf_score(task, *splits[:2]) if args.dataset == 'own' else None,
                warnings=warnings_of(args, task, splits, examples) + unfamiliar(ids[0].ids, text_encoder.encoder))


def warnings_of(args, task, splits, examples) -> list[str]:
    """Sentences about what looks wrong with the examples, as text in `splits` and as ids in `examples`."""
    warnings = [note for split in splits for note in split.notes] + overlaps(task, splits)
    if args.submit and len(splits) < 3:
        warnings.append('there is no test file, so --submit has nothing to predict')
    return warnings + [f'{of.n_cut} of {len(of)} {name} examples are longer than n_ctx={args.n_ctx} allows: their '
                       'texts are cut'
                       for name, of in zip(('training', 'validation', 'test'), examples, strict=False) if of.n_cut]


def later_positions(args, n_ctx):
    """The positions from n_ctx to --n_ctx in the weights that are loaded, as many as there are: (n, n_embd)."""
    if args.n_transfer < 0:
        return torch.empty(0, args.n_embd)
    shapes, shards = open_release(args.model_path)
    of_positions = [piece for i, _, piece in pieces(shards, list(map(math.prod, shapes))) if i == 0]
    return torch.cat(of_positions).view(shapes[0])[n_ctx:args.n_ctx]


def overlaps(task, splits) -> list[str]:
    """Warnings about validation and test examples that were trained on, or chosen by: their scores mean little."""
    n_fields = N_BEFORE.get(task.form)  # without the answers
    warnings, seen = [], set()
    for name, split in zip(('training', 'validation', 'test'), splits, strict=False):
        examples = list(zip(*split.texts[:n_fields], strict=True))
        n_again = sum(texts in seen for texts in examples)
        if n_again:
            warnings.append(f'{n_again} of {len(examples)} {name} examples are in an earlier split too')
        seen.update(examples)
    return warnings


def scale_of(labels) -> tuple[float, float]:
    """Mean and standard deviation of the training numbers; the network learns (number - mean) / deviation."""
    if min(labels) == max(labels):
        raise ValueError(f'all {len(labels)} training examples have the same number, {labels[0]:g}: nothing can be '
                         'learned')
    with np.errstate(all='ignore'):
        mean, std = float(np.mean(labels)), float(np.std(labels))
    if not 0 < std < math.inf:
        raise ValueError(f'the training examples have numbers from {min(labels):g} to {max(labels):g}, whose variance '
                         'cannot be computed: give them in another unit')
    return mean, std


def build_model(args, task, n_vocab, n_ctx, clf_token):
    """The network for a task, with fresh weights."""
    return DoubleHeadModel(args, clf_token, task.head, vocab=n_vocab + len(SPECIAL) + n_ctx, n_ctx=n_ctx)


class Losses(nn.Module):
    """The losses of a training step, as a module that DistributedDataParallel can wrap.

    They come from fast.py; with `plain` from DoubleHeadModel.forward and loss.py: the same numbers but for dropout.
    """

    def __init__(self, model, lm_coef, plain=False):
        super().__init__()
        self.model = model if plain else fast.use_fast_layers(model)
        self.lm_coef, self.plain = lm_coef, plain
        self.compute = MultipleChoiceLossCompute(nn.CrossEntropyLoss(reduction='none'), task_losses, lm_coef)

    def forward(self, X, M, Y):
        """The training loss, the task's losses (B,) and the language model's (B*K,), None without lm_coef."""
        if not self.plain:
            return fast.double_head_losses(self.model, X, M, Y, self.lm_coef)
        X, M, Y = (t.to(self.model.task_head.linear.weight.device) for t in (X, M, Y))
        lm_logits, clf_logits = self.model(X)
        clf_losses, lm_losses = self.compute(X, Y, M, clf_logits, lm_logits, only_return_losses=True)
        return train_loss(clf_losses, lm_losses, self.lm_coef), clf_losses, lm_losses if self.lm_coef else None


def update(runner, opt, batch, n_towers, autocast, scaler=NO_SCALING):
    """One update from a batch (X, M, Y) cut into towers.

    Returns the mean losses, (task, language model), as a tensor (2,); the second is 0 without lm_coef.
    """
    losses = []

    def loss_of(tower):
        loss, clf_losses, lm_losses = runner(*tower)
        lm_loss = clf_losses.new_zeros(()) if lm_losses is None else lm_losses.detach().mean()
        losses.append(torch.stack([clf_losses.detach().mean(), lm_loss]))
        return loss / n_towers

    towers = list(zip(*(t.chunk(n_towers) for t in batch), strict=True))
    update_by_parts(loss_of, towers, runner, opt, autocast, scaler)
    return torch.stack(losses).mean(0)


def build(run, task, data):
    """The network with the released weights; its `Losses`, perhaps in DistributedDataParallel; the optimizer."""
    args, n_total = run.args, data.per_epoch * run.args.n_iter
    set_seed(args.seed)
    model = build_model(args, task, data.n_vocab, data.n_ctx, data.clf_token)
    load_openai_pretrained_model(model, n_ctx=data.n_ctx, n_special=len(SPECIAL), n_transfer=args.n_transfer,
                                 path=args.model_path)
    runner = Losses(model.to(run.device), args.lm_coef, args.plain)
    if run.ranks.size > 1:
        runner = DistributedDataParallel(runner)
        torch.manual_seed(args.seed + run.ranks.rank)  # every process draws its own dropout
    opt = OpenAIAdam(model.parameters(), lr=args.lr, schedule=args.lr_schedule, t_total=n_total,
                     warmup=warmup_of(args.lr_warmup, n_total), b1=args.b1, b2=args.b2, e=args.e, l2=args.l2,
                     vector_l2=args.vector_l2, max_grad_norm=args.max_grad_norm)
    return model, runner, opt


def begin(run, task, data):
    """Begin the run, or go on from its checkpoint; returns the three of `build`, and the scaler of losses."""
    args, device = run.args, run.device
    model, runner, opt = build(run, task, data)
    scaler = grad_scaler(device, args.dtype)
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
    state = dict(n_updates=0, n_total=data.per_epoch * args.n_iter, n_epochs=0, order=None, losses=[], parameters=None)
    state = run.begin(dict(model=model, opt=opt, scaler=scaler), data.digest, state,
                      environment={**environment(), **data.hashes, 'device': name, 'processes': run.ranks.size})
    if state.get('parameters') and run.ranks.rank == 0:
        check_file(run.path('best_params.pt'), hint=f', and the run cannot go on without it: delete {run.folder}')
    run.keep_vocabulary(args.encoder_path, args.bpe_path)
    if run.ranks.rank == 0:
        kept = {name: value for name, value in vars(args).items() if name not in INCIDENTAL}
        write_sealed(run.path('config.json'), dict(
            options=kept, form=task.form, classes=task.classes, positive=task.positive, scale=data.scale,
            n_vocab=data.n_vocab, n_ctx=data.n_ctx + len(data.positions), clf_token=data.clf_token, **data.hashes))
    n_test = 0 if data.test is None else len(data.test)
    metric = 'acc' if task.metrics[0] == 'accuracy' else task.metrics[0]
    run.print(f'{len(data.train)} training, {len(data.valid)} validation and {n_test} test examples; '
              f'updates {state["n_updates"] + 1} to {state["n_total"]}, of {args.n_batch * args.n_gpu} examples each, '
              f'on {device}')
    if args.dataset == 'own' and args.n_transfer >= 0:
        run.print(f'it begins with the network in {args.model_path}')
    if 'f1' in task.metrics:
        run.print(f'f1 is that of the class {task.classes[task.positive]}')
    run.print(f'epoch updates tr_cost va_cost tr_{metric} va_{metric}')
    return model, runner, opt, scaler


def fetch_losses(run, data, pending):
    """Bring the losses of the last updates to the host, into the state. A loss that is not finite ends the run."""
    losses = run.state['losses']
    if not pending:
        return
    for clf_loss, lm_loss in (run.ranks.sum(torch.stack(pending)) / run.ranks.size).tolist():
        if not math.isfinite(clf_loss + lm_loss):
            epoch, i = divmod(len(losses), data.per_epoch)
            run.raise_diverged(f'the loss of update {len(losses) + 1} (epoch {epoch + 1}, batch {i + 1}) is {clf_loss} '
                               f'(classification), {lm_loss} (language model)')
        losses.append([clf_loss, lm_loss if run.args.lm_coef else None])
    pending.clear()


def merit(task, line) -> tuple:
    """The key by which the evaluations in a log are compared: the best epoch has the greatest."""
    return line['va_score'], (-line['va_cost'] if task.ties_by_cost else 0)


def is_early(state):
    """True if the original would evaluate now, within a long first epoch."""
    n_updates = state['n_updates']
    return state['n_epochs'] == 0 and n_updates in EARLY_LOGS and state['log'][-1].get('n_updates') != n_updates


def evaluate_and_log(run, task, data, model, n_epochs):
    """Evaluate, print and log; keep the parameters if they are the best so far on the validation examples."""
    check = run.save_or_stop if run.ranks.size == 1 else None  # all processes must call it equally often
    line, n_scored = dict(n_epochs=n_epochs, n_updates=run.state['n_updates']), run.args.n_valid or N_VALID
    for name, examples, n, parts in (('tr', data.train, min(n_scored, len(data.train)), {}),
                                     ('va', data.valid, len(data.valid), data.parts[1])):
        logits = evaluate(run, model, examples, n, check)
        scored = scores_of(task, logits, examples.labels[:n], data.scale, parts)
        line |= {f'{name}_{key}': value for key, value in scored.items()}
    line |= dict(va_constant=is_constant(task.predictions(logits, data.scale)), va_trivial=data.trivial)
    is_best = merit(task, line) > max((merit(task, earlier) for earlier in run.state['log'][1:]), default=(-math.inf,))
    run.log(**line)
    if is_best and run.ranks.rank == 0:
        run.check_parameters()
        state = model.state_dict()
        table = torch.cat([state[TABLE[0]].cpu(), data.positions])
        save_state(run.path('best_params.pt'), {**state, **dict.fromkeys(TABLE, table)})
        run.state['parameters'] = sha256(run.path('best_params.pt'))
    run.print('{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_score:.2f} {va_score:.2f}'.format(**line))


def fine_tune(run, task, data):
    """Train from the beginning, or from the checkpoint; returns the results of the run."""
    if results := run.complete_results():
        if results['data'] != data.digest:
            raise ValueError(f'{run.results_path}: the complete run had other data, another vocabulary or other '
                             'weights: choose another --desc')
        if run.args.submit and data.test is not None and 'submission' not in results:
            run.print(f'it was trained without --submit: --desc {run.args.desc} --predict FILE predicts')
        return summary(run, task, results)
    args, n_batch, per_epoch = run.args, run.args.n_batch * run.args.n_gpu, data.per_epoch
    model, runner, opt, scaler = begin(run, task, data)
    state, fetch_every = run.state, 1 if run.device.type == 'cpu' or args.checkpoint_minutes == 0 else FETCH_EVERY
    pending = []  # losses that are still on the device

    for epoch in range(state['n_epochs'], args.n_iter):
        if state['order'] is None:
            order = np.arange(len(data.train))
            np.random.shuffle(order)  # as scikit-learn's shuffle in the original
            state['order'] = torch.from_numpy(order)
        n_done = state['n_updates'] - epoch * per_epoch
        for i in progress(f'epoch {epoch + 1}/{args.n_iter}', range(n_done, per_epoch), per_epoch, initial=n_done,
                          disable=run.ranks.rank > 0):
            if is_early(state):
                fetch_losses(run, data, pending)
                evaluate_and_log(run, task, data, model, 0)
            where = state['order'][i * n_batch:(i + 1) * n_batch].chunk(run.ranks.size)[run.ranks.rank].numpy()
            batch = [torch.from_numpy(t) for t in (*data.train.batch(where), data.train.labels[where])]
            pending.append(update(runner, opt, batch, args.n_gpu // run.ranks.size, run.autocast, scaler))
            state['n_updates'] += 1
            if len(pending) == fetch_every:  # until then a GPU is not waited for
                fetch_losses(run, data, pending)
                run.save_or_stop()
        fetch_losses(run, data, pending)
        if is_early(state):  # then the original evaluates twice at the end of the epoch
            evaluate_and_log(run, task, data, model, 0)
        evaluate_and_log(run, task, data, model, epoch + 1)
        state['n_epochs'], state['order'] = epoch + 1, None
    run.save()
    run.signals.release()  # from here on Ctrl-C ends at once: --resume goes on from the checkpoint
    return finish(run, task, data, model)


def finish(run, task, data, model):
    """Predict the test file with the best parameters; write and return the results of the run."""
    args, best_path, lines = run.args, run.path('best_params.pt'), run.state['log'][1:]
    best = max(lines, key=lambda line: merit(task, line))  # the first of equals, whose parameters are kept
    if run.ranks.rank == 0 and sha256(best_path) != run.state.get('parameters'):
        raise ValueError(f'{best_path} is not what this run wrote: it was damaged or replaced: delete {run.folder} to '
                         'train again')
    results = dict(n_ctx=data.n_ctx, n_updates=run.state['n_updates'], log=lines, losses=run.state['losses'],
                   metric=task.metrics[0], best_epoch=best['n_epochs'], valid_score=best['va_score'],
                   valid_accuracy=best.get('va_acc'), degenerate=best['va_constant'],
                   valid_trivial=data.trivial, valid_tfidf=data.tfidf,
                   best=best, test_score=None, test_accuracy=None, test_trivial=None, test_logits=None, test=None,
                   n_examples=dict(train=len(data.train), valid=len(data.valid), test=len(data.test or ())),
                   data=data.digest, log_path=run.log_path, best_path=best_path,
                   hashes=dict(data.hashes, parameters=run.state['parameters']))
    if args.submit and data.test is not None:
        state = load_state(best_path)
        model.load_state_dict({**state, **dict.fromkeys(TABLE, state[TABLE[0]][:len(model.transformer.embed.weight)])})
        logits = evaluate(run, model, data.test, len(data.test))
        if logits.numel() <= MAX_LOGITS:
            results['test_logits'] = logits.tolist()
        results['submission'] = write_submission(run, task, data, logits)
        if data.test.labels is not None:
            scored = scores_of(task, logits, data.test.labels, data.scale, data.parts[2])
            line = {f'test_{key}': value for key, value in scored.items()}
            results |= dict(test=line, test_score=line['test_score'], test_accuracy=line.get('test_acc'),
                            test_trivial=trivial_score(task.metrics[0], data.test.labels, len(task.classes),
                                                       task.positive))
            run.log(**line, test_trivial=results['test_trivial'])
    return summary(run, task, run.finish(results))


def write_submission(run, task, data, logits):
    """Write the predictions of the test examples, a file for each part that the task wants; returns their paths."""
    values, paths = task.answers(logits, data.scale, task.written), []
    for part, name in task.submission.items():
        if not part or part in data.parts[2]:
            paths.append(os.path.join(run.args.submission_dir, name))
            if run.ranks.rank == 0:
                write_predictions(paths[-1], values[data.parts[2][part]] if part else values)
    return ', '.join(paths)


def summary(run, task, results):
    """Print the best score and the paths of all files; returns the results as a namespace."""
    if run.args.analysis and run.ranks.rank == 0:
        name = os.path.splitext(task.submission[''])[0] if '' in task.submission else run.args.dataset
        analysis.report(name, results['valid_score'], results['test_score'], task.metrics[0])
    minutes, seconds = divmod(round(results['seconds']), 60)
    when = f'epoch {results["best_epoch"]}' if results['best_epoch'] else f'update {results["best"]["n_updates"]}'
    beside = f'the best constant answer: {results["valid_trivial"]:.2f}'
    if results['valid_tfidf'] is not None:  # own data: whether the network is worth it
        beside += f'; a linear model on TF-IDF: {results["valid_tfidf"]:.2f}'
    run.print(f'{results["n_updates"]} updates in {minutes} min {seconds} s; best on validation: '
              f'{results["valid_score"]:.2f} after {when} ({beside})')
    if results['degenerate']:
        run.print('warning: the network gives all validation examples the same answer')
    for what, key in (('log', 'log_path'), ('parameters', 'best_path'), ('predictions', 'submission')):
        if key in results:
            run.print(f'{what}: {results[key]}')
    return SimpleNamespace(**results)


def options_of_runs(args) -> list:
    """The options of each run: with --seeds, one for each seed, as --seed and --desc would give them."""
    if args.seeds is None:
        return [args]
    descs = [f'{args.desc}-{seed}' for seed in args.seeds]
    return [Namespace(**{**vars(args), 'seeds': None, 'seed': seed, 'desc': desc,
                         'submission_dir': os.path.join(args.submission_dir, desc)})
            for seed, desc in zip(args.seeds, descs, strict=True)]


def main(args, train_rows=None):
    """Train, or predict with --predict; returns the results, a list of them with --seeds. train_rows: see own.load."""
    if args.predict:  # in one process, whatever the environment says
        return predict(Run(args, Ranks(), *device_of(args)))
    ranks = Ranks.of_torchrun()
    if args.n_gpu % ranks.size:
        raise ValueError(f'{ranks.size} processes cannot share --n_gpu {args.n_gpu} towers equally')
    device, autocast = device_of(args, ranks)
    ranks.join(device)
    try:
        ranks.agree('values of --dtype', args.dtype)  # auto may be another one on another machine
        (task, data), results = load_data(args, train_rows), []
        ranks.agree('data or weights', data.digest)
        for warning in data.warnings if ranks.rank == 0 else ():
            print(printable(f'warning: {warning}'))
        for of_seed in options_of_runs(args):
            if args.seeds and ranks.rank == 0:
                print(f'--- seed {of_seed.seed}, {len(results) + 1} of {len(args.seeds)}: {of_seed.desc} ---')
            with Run(of_seed, ranks, device, autocast) as run:
                results.append(fine_tune(run, task, data))
        ranks.gather(None)  # all wait until the first one has written its files
        if args.seeds is None:
            return results[0]
        if ranks.rank == 0:
            for kind in ('valid', 'test'):
                found = [getattr(result, f'{kind}_score') for result in results]
                print(f'{kind} {task.metrics[0]}: {analysis.describe(found)}')
            logs = shlex.quote(os.path.join(args.log_dir, f'{args.desc}-'))
            print(f'python analysis.py {logs}*.jsonl  # compares and draws them')
        return results
    finally:
        ranks.leave()


if __name__ == '__main__':
    run_script(main, args, 'half of --n_batch and twice --n_gpu are the same training in less memory')
