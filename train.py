"""Fine-tune the network on a task: `python train.py --dataset rocstories --submit --analysis`.

Prints after each epoch, as the original does: epoch updates tr_cost va_cost tr_acc va_acc. Interrupted, it goes on with
the same command and --resume. Under torchrun its towers are spread over the processes.
"""

from options import N_VALID, warmup_of
from options import train_options as parse_args
from shell import begin_script, memory_advice, run_script

if __name__ == '__main__':
    args = begin_script(parse_args)                                    # before the slow imports: --help is quick

import hashlib
import math
import os
from argparse import Namespace
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import analysis
import fast
import own
from checkpoint import Run, environment, load_into, load_state, save_state, set_aside, sha256
from datasets import SPECIAL, Examples, encode_texts, fit_n_ctx, hash_ids, hash_texts
from device import NO_SCALING, Ranks, device_of, grad_scaler, set_seed
from loss import MultipleChoiceLossCompute, task_losses, train_loss
from metrics import is_constant, scores, trivial_score
from model_pytorch import DoubleHeadModel, MultipleChoiceHead, load_openai_pretrained_model, read_shapes
from opt import OpenAIAdam
from tasks import TASKS
from text_utils import TextEncoder
from trained import hash_model, open_trained
from utils import TimeLeft, write_whole

FETCH_EVERY = 20                                        # updates between two looks at losses and signals on a GPU
EARLY_LOGS = (1000, 2000, 4000, 8000, 16000, 32000)     # updates of the first epoch after which the original logs too


def add_special(text_encoder):
    """The vocabulary of a TextEncoder, {token: id}, with the special tokens appended."""
    for token in SPECIAL:
        if token in text_encoder.encoder:
            raise ValueError(f'the vocabulary has a token {token}, which is to be added to it')
    return {**text_encoder.encoder, **{token: text_encoder.n_vocab + i for i, token in enumerate(SPECIAL)}}


def hash_files(args, n_vocab):
    """Hashes of vocabulary, merges and weights. Raises ValueError if they do not belong together."""
    if args.n_transfer == -1:                                          # no weights are loaded
        return dict(vocabulary=sha256(args.encoder_path), merges=sha256(args.bpe_path))
    n_stored = read_shapes(args.model_path)[1][0]
    if n_stored != n_vocab:
        raise ValueError(f'{args.encoder_path} has {n_vocab} tokens, the weights in {args.model_path} are for '
                         f'{n_stored}: they do not belong together')
    return hash_model(args.model_path, args.encoder_path, args.bpe_path)


def load_data(args, task):
    """Read and encode the examples of the task: a namespace with train, valid, test Examples and what they imply."""
    text_encoder = TextEncoder(args.encoder_path, args.bpe_path)
    hashes = hash_files(args, text_encoder.n_vocab)
    encoder = add_special(text_encoder)
    splits = [split for split in task.load(args) if split is not None]
    warnings = [note for split in splits for note in split.notes] + labels_and_overlap(task, *splits)
    if args.submit and len(splits) < 3:
        warnings.append('there is no test file, so --submit has nothing to predict')
    texts = [field for split in splits for field in split.texts]
    encoded = encode_texts(texts, text_encoder)
    hashes['texts'] = hash_texts(texts).hexdigest()
    hashes['ids'] = hash_ids(encoded).hexdigest()
    n_fields = len(splits[0].texts)
    fields = [encoded[i:i + n_fields] for i in range(0, len(encoded), n_fields)]         # of train, valid, test
    n_ctx, max_len, _ = fit_n_ctx(fields, args.n_ctx, task.form)
    scale = None if task.classes else scale_of(splits[0].labels)
    train, valid, *test = (Examples(task.form, ids, standardised(split.labels, scale), encoder, n_ctx, max_len)
                           for ids, split in zip(fields, splits, strict=True))
    warnings += [f'{examples.n_cut} of {len(examples)} {name} examples are longer than n_ctx={args.n_ctx} allows: '
                 'their texts are cut'
                 for name, examples in zip(('training', 'validation', 'test'), (train, valid, *test), strict=False)
                 if examples.n_cut]
    labels = [split.labels for split in splits]
    digest = hashlib.sha256(repr([n_ctx, hashes, labels]).encode()).hexdigest()
    return SimpleNamespace(train=train, valid=valid, test=test[0] if test else None, scale=scale,
                           parts=[split.parts for split in splits], n_vocab=text_encoder.n_vocab, n_ctx=n_ctx,
                           clf_token=encoder['_classify_'], digest=digest, warnings=warnings, hashes=hashes)


def labels_and_overlap(task, train, valid, test=None):
    """What would make the scores of these splits mean little, one sentence each."""
    warnings = [f'all {len(split.labels)} {name} examples have the same label'
                for name, split in (('training', train), ('validation', valid)) if len(set(split.labels)) == 1]
    n_fields = {'choices': 1, 'question': 2}.get(task.form)            # without the answers
    seen, seen_in = set(), ''
    for name, split in (('training', train), ('validation', valid), ('test', test)):
        examples = [] if split is None else list(zip(*split.texts[:n_fields], strict=True))
        n_again = sum(texts in seen for texts in examples)
        if n_again:
            warnings.append(f'{n_again} of {len(examples)} {name} examples are {seen_in} examples too')
        seen.update(examples)
        seen_in = f'{seen_in} or {name}' if seen_in else name
    return warnings


def scale_of(labels) -> tuple[float, float]:
    """Mean and standard deviation of the training numbers, in whose unit the network is trained."""
    mean, std = float(np.mean(labels)), float(np.std(labels))
    if is_constant(labels):
        raise ValueError(f'all {len(labels)} training examples have the same number, {mean:g}: nothing can be learned')
    return mean, std


def standardised(labels, scale):
    """Labels as the network is trained on them: (number - mean) / deviation; class numbers and None as they are."""
    return labels if labels is None or scale is None else (np.array(labels) - scale[0]) / scale[1]


def build_model(args, task, n_vocab, n_ctx, clf_token):
    """The network for a task, with fresh weights."""
    return DoubleHeadModel(args, clf_token, task.head, vocab=n_vocab + len(SPECIAL) + n_ctx, n_ctx=n_ctx)


class Losses(nn.Module):
    """The losses of a training step, as a module that DistributedDataParallel can wrap, and the logits of evaluation.

    Both come from fast.py; with `plain` from DoubleHeadModel.forward and loss.py, which give the same numbers.
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
        if self.lm_coef == 0:
            clf_losses = self.compute(X, Y, M, clf_logits, only_return_losses=True)
            return clf_losses.mean(), clf_losses, None
        clf_losses, lm_losses = self.compute(X, Y, M, clf_logits, lm_logits, only_return_losses=True)
        return train_loss(clf_losses, lm_losses, self.lm_coef), clf_losses, lm_losses

    @torch.no_grad()
    def logits(self, X, M):
        """The task logits (B, n_out)."""
        if not self.plain:
            return fast.task_logits(self.model, X, M)
        return self.model(X.to(self.model.task_head.linear.weight.device))[1]


def update(runner, opt, batch, n_towers, autocast, scaler=NO_SCALING):
    """One update from a batch (X, M, Y) cut into towers, which are computed one after the other.

    Returns the mean losses, (task, language model), as a tensor (2,); the second is 0 without lm_coef.
    """
    runner.train()
    losses = []
    for i, tower in enumerate(zip(*(t.chunk(n_towers) for t in batch), strict=True)):
        is_last = i + 1 == n_towers
        # processes exchange their gradients once an update, after the last tower
        with nullcontext() if is_last or not isinstance(runner, DistributedDataParallel) else runner.no_sync():
            with autocast:
                loss, clf_losses, lm_losses = runner(*tower)
            scaler.scale(loss / n_towers).backward()
        clf_loss = clf_losses.detach().mean()
        losses.append(torch.stack([clf_loss, torch.zeros_like(clf_loss) if lm_losses is None else lm_losses.mean()]))
    scaler.step(opt)
    scaler.update()
    opt.zero_grad()
    return torch.stack(losses).mean(0)


def evaluate(module, examples, n, n_batch, autocast, ranks, check=None):
    """Task logits (n, n_out) of the first n examples, in evaluation mode; batches are spread over the processes.

    module: `Losses`. check: called between batches; it may raise to end the run.
    """
    module.eval()
    head = module.model.task_head
    n_out = examples.lengths.shape[1] if isinstance(head, MultipleChoiceHead) else head.linear.out_features
    logits = torch.zeros(n, n_out, device=head.linear.weight.device)
    batches = examples.batches(n, n_batch)[ranks.rank::ranks.size]
    with autocast:
        for batch in tqdm(batches, desc='evaluating', ncols=80, leave=False, disable=None):
            if check:
                check()
            X, M = map(torch.from_numpy, examples.batch(batch.flat))   # (G*Q, K, n_ctx, 2), (G*Q, K, n_ctx)
            X, M = (t.reshape(len(batch), -1, *t.shape[2:]) for t in (X, M))     # the choices of a group: (G, Q*K, ...)
            logits[batch.ravel()] = module.logits(X, M).float().view(-1, n_out)
    return ranks.sum(logits).cpu()                      # each row was computed by one process and is 0 on the others


def predictions_of(task, logits):
    """Class numbers, or standardised numbers where the task has no classes: logits (N, n_out) -> array (N,)."""
    return (logits.argmax(1) if task.classes else logits[:, 0]).numpy()


def score(task, logits, labels, parts) -> dict:
    """How good these logits are, for a line of the log: `cost`, the mean loss in nats or squared error; `score`, the
    task's first metric; each metric by its name (accuracy as `acc`); and `score_PART` for each of the parts."""
    predictions = predictions_of(task, logits)
    values = scores(task.metrics, labels, predictions)
    first = task.metrics[0]
    return (dict(cost=task_losses(logits, torch.from_numpy(labels)).mean().item(), score=values[first])
            | {'acc' if name == 'accuracy' else name: value for name, value in values.items()}
            | {f'score_{part}': scores([first], labels[where], predictions[where])[first]
               for part, where in parts.items()})


def build(args, task, data, device, ranks, t_total):
    """The network with the released weights in its `Losses`; what is called to train, which with several processes is
    DistributedDataParallel around it; and the optimizer."""
    set_seed(args.seed)
    model = build_model(args, task, data.n_vocab, data.n_ctx, data.clf_token)
    load_openai_pretrained_model(model, n_ctx=data.n_ctx, n_special=len(SPECIAL), n_transfer=args.n_transfer,
                                 path=args.model_path)
    runner = module = Losses(model.to(device), args.lm_coef, args.plain)
    if ranks.size > 1:
        runner = DistributedDataParallel(module)
        torch.manual_seed(args.seed + ranks.rank)                      # every process draws its own dropout
    opt = OpenAIAdam(model.parameters(), lr=args.lr, schedule=args.lr_schedule, t_total=t_total,
                     warmup=warmup_of(args.lr_warmup, t_total), b1=args.b1, b2=args.b2, e=args.e, l2=args.l2,
                     vector_l2=args.vector_l2, max_grad_norm=args.max_grad_norm)
    return module, runner, opt


def fetch(pending, run, per_epoch):
    """Bring the losses of the last updates to the host, into the state. A loss that is not finite ends the run."""
    losses = run.state['losses']
    if not pending:
        return
    for clf_loss, lm_loss in (run.ranks.sum(torch.stack(pending)) / run.ranks.size).tolist():
        if not math.isfinite(clf_loss + lm_loss):
            epoch, i = divmod(len(losses), per_epoch)
            run.raise_diverged(f'the loss of update {len(losses) + 1} (epoch {epoch + 1}, batch {i + 1}) is {clf_loss} '
                         f'(classification), {lm_loss} (language model)')
        losses.append([clf_loss, lm_loss if run.args.lm_coef else None])
    pending.clear()


def merit(task, line) -> tuple:
    """By this the evaluations in a log are compared; the best epoch has the greatest."""
    return line['va_score'], -line['va_cost'] if task.ties_by_cost else 0


def evaluate_and_log(n_epochs, task, data, module, run, autocast):
    """Evaluate, print and log; keep the parameters if they are the best so far on the validation examples."""
    n_valid, n_batch = len(data.valid), run.args.n_batch * run.args.n_gpu
    check = run.save_or_stop if run.ranks.size == 1 else None          # processes have different numbers of batches
    line = dict(n_epochs=n_epochs, n_updates=run.state['n_updates'])
    for name, examples, n, parts in (('tr', data.train, min(run.args.n_valid or N_VALID, len(data.train)), {}),
                                     ('va', data.valid, n_valid, data.parts[1])):
        logits = evaluate(module, examples, n, n_batch, autocast, run.ranks, check)
        line |= {f'{name}_{key}': value for key, value in score(task, logits, examples.labels[:n], parts).items()}
    line['va_constant'] = is_constant(predictions_of(task, logits))
    is_best = merit(task, line) > max((merit(task, earlier) for earlier in run.state['log'][1:]), default=(-math.inf,))
    run.log(**line)
    if is_best and run.ranks.rank == 0:
        run.check_parameters()
        save_state(run.path('best_params.pt'), module.model.state_dict())
    run.print('{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_score:.2f} {va_score:.2f}'.format(**line))


def announce(run, task, data, n_batch):
    """Print what the run will do, and the names of the columns of its evaluations."""
    state, metric = run.state, 'acc' if task.metrics[0] == 'accuracy' else task.metrics[0]
    n_test = 0 if data.test is None else len(data.test)
    run.print(f'{len(data.train)} training, {len(data.valid)} validation and {n_test} test examples; updates '
              f'{state["n_updates"] + 1} to {state["n_total"]}, of {n_batch} examples each, on {run.device}')
    run.print(f'epoch updates tr_cost va_cost tr_{metric} va_{metric}')


def is_early(state):
    """Whether a line of the log is due within a long first epoch, as in the original."""
    n_updates = state['n_updates']
    return state['n_epochs'] == 0 and n_updates in EARLY_LOGS and state['log'][-1].get('n_updates') != n_updates


def fine_tune(args, task, data, device, autocast, ranks):
    """One run, or what is left of it; returns its results."""
    n_batch = args.n_batch * args.n_gpu
    per_epoch = len(data.train) // n_batch
    if per_epoch == 0:
        raise ValueError(f'{len(data.train)} training examples do not fill one batch of --n_batch {args.n_batch} x '
                         f'--n_gpu {args.n_gpu}')
    with Run(args, ranks, device) as run:
        if run.results:
            if run.results['data'] != data.digest:
                raise ValueError(f'{run.results_path}: the complete run had other data, another vocabulary or other '
                                 'weights: choose another --desc')
            return summary(run, run.results)
        module, runner, opt = build(args, task, data, device, ranks, per_epoch * args.n_iter)
        scaler = grad_scaler(device, args.dtype)
        name = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
        state = run.begin(dict(model=module.model, opt=opt, scaler=scaler), data.digest,
                          dict(n_updates=0, n_total=per_epoch * args.n_iter, n_epochs=0, order=None, losses=[]),
                          submission_paths(args, task) if args.submit else (),
                          environment={**environment(), **data.hashes, 'device': name, 'processes': ranks.size})
        run.keep_vocabulary(args.encoder_path, args.bpe_path)
        run.write_sealed('config.json', dict(
            options=vars(args), form=task.form, classes=task.classes, scale=data.scale, n_vocab=data.n_vocab,
            n_ctx=data.n_ctx, clf_token=data.clf_token, **data.hashes))
        fetch_every = 1 if device.type == 'cpu' or args.checkpoint_minutes == 0 else FETCH_EVERY
        pending = []                                                   # losses that are still on the device
        announce(run, task, data, n_batch)
        time_left = TimeLeft(state['n_total'], state['n_updates'])

        for epoch in range(state['n_epochs'], args.n_iter):
            if state['order'] is None:
                order = np.arange(len(data.train))
                np.random.shuffle(order)                               # as scikit-learn's shuffle in the original
                state['order'] = torch.from_numpy(order)
            n_done = state['n_updates'] - epoch * per_epoch
            for i in tqdm(range(n_done, per_epoch), f'epoch {epoch + 1}/{args.n_iter}', initial=n_done, total=per_epoch,
                          ncols=80, leave=False, disable=True if ranks.rank else None):
                if is_early(state):
                    fetch(pending, run, per_epoch)
                    evaluate_and_log(0, task, data, module, run, autocast)
                where = state['order'][i * n_batch:(i + 1) * n_batch].chunk(ranks.size)[ranks.rank].numpy()
                batch = [torch.from_numpy(t) for t in (*data.train.batch(where), data.train.labels[where])]
                pending.append(update(runner, opt, batch, args.n_gpu // ranks.size, autocast, scaler))
                state['n_updates'] += 1
                if len(pending) == fetch_every:                        # until then a GPU is not waited for
                    fetch(pending, run, per_epoch)
                    run.save_or_stop()
                    if left := time_left.say(state['n_updates']):
                        run.print(f'update {state["n_updates"]} of {state["n_total"]}, {left}')
            fetch(pending, run, per_epoch)
            if is_early(state):
                evaluate_and_log(0, task, data, module, run, autocast)
            evaluate_and_log(epoch + 1, task, data, module, run, autocast)
            state['n_epochs'], state['order'] = epoch + 1, None
        run.save()
        return finish(args, task, data, run, module, autocast)


def finish(args, task, data, run, module, autocast):
    """Predict the test file with the best parameters; write and return the results of the run."""
    best_path, lines = run.path('best_params.pt'), run.state['log'][1:]
    best = max(lines, key=lambda line: merit(task, line))              # the first of equals, whose parameters are kept
    results = dict(n_ctx=data.n_ctx, n_updates=run.state['n_updates'], log=lines, losses=run.state['losses'],
                   metric=task.metrics[0], best_epoch=best['n_epochs'], valid_score=best['va_score'],
                   valid_accuracy=best.get('va_acc'), degenerate=best['va_constant'],
                   valid_trivial=trivial_score(task.metrics[0], data.valid.labels, len(task.classes)),
                   best=best, test_score=None, test_accuracy=None, test_trivial=None, test_logits=None, test=None,
                   n_examples=dict(train=len(data.train), valid=len(data.valid), test=len(data.test or ())),
                   data=data.digest, log_path=run.log_path, best_path=best_path,
                   hashes=dict(parameters=sha256(best_path)) if run.ranks.rank == 0 else None)
    if args.submit and data.test is not None:
        load_into(module.model, load_state(best_path, run.device), best_path)
        logits = evaluate(module, data.test, len(data.test), args.n_batch * args.n_gpu, autocast, run.ranks)
        results['test_logits'] = logits.tolist()
        results['submission'] = write_submission(args, task, data, logits, run)
        if data.test.labels is not None:
            line = {f'test_{key}': value for key, value in score(task, logits, data.test.labels, data.parts[2]).items()}
            if task.classes:
                line['wrong'] = analysis.wrong(data.test.labels, predictions_of(task, logits))
            run.log(**line)
            results |= dict(test=line, test_score=line['test_score'], test_accuracy=line.get('test_acc'),
                            test_trivial=trivial_score(task.metrics[0], data.test.labels, len(task.classes)))
    if args.analysis and run.ranks.rank == 0:
        name = os.path.splitext(task.files[''])[0] if '' in task.files else args.dataset
        analysis.report(name, best['va_score'], results['test_score'], task.metrics[0])
    return summary(run, run.finish(results))


def submission_paths(args, task) -> list[str]:
    """Where the predictions of the test examples go."""
    return [os.path.join(args.submission_dir, name) for name in task.files.values()]


def write_submission(args, task, data, logits, run):
    """Write the predictions of the test examples, a file for each part that the task wants; returns their paths."""
    values, paths = written(task, logits, data.scale, task.written), []
    for part, path in zip(task.files, submission_paths(args, task), strict=True):
        if not part or part in data.parts[2]:
            paths.append(path)
            if run.ranks.rank == 0:
                for earlier in set_aside([path]):                      # of a run that ended while this one ran
                    run.print(f'predictions of another run are now in {earlier}')
                write_predictions(path, values[data.parts[2][part]] if part else values)
    return ', '.join(paths)


def written(task, logits, scale, names=()) -> list[str]:
    """Predictions as text: the names of classes, or other names for them, or numbers in the unit of the labels."""
    predictions = predictions_of(task, logits)
    if task.classes:
        return [(names or task.classes)[prediction] for prediction in predictions]
    digits = 3 if task.limits else max(3, 2 - math.floor(math.log10(scale[1])))          # a hundredth of the spread
    return [f'{number:.{digits}f}' for number in in_units(task, predictions, scale)]


def in_units(task, numbers, scale):
    """Predicted numbers, an array (N,), in the unit of the labels and within the limits of the task."""
    numbers = numbers.astype(np.float64) * scale[1] + scale[0]
    return numbers.clip(*task.limits) if task.limits else numbers


def write_predictions(path, values, classes=(), probabilities=()):
    """index<TAB>prediction, as in the original; and where they are given the probability of each class."""
    columns = [f'p{name}' if name.isdigit() else name for name in classes]
    with write_whole(path) as f:
        f.write('\t'.join(['index', 'prediction', *columns]) + '\n')
        for i, value in enumerate(values):
            f.write('\t'.join([str(i), value, *(f'{p:.6f}' for p in (probabilities[i] if classes else ()))]) + '\n')


def summary(run, results):
    """Print what came out and where it is; returns the results as a namespace."""
    minutes, seconds = divmod(round(results['seconds']), 60)
    when = f'epoch {results["best_epoch"]}' if results['best_epoch'] else f'update {results["best"]["n_updates"]}'
    run.print(f'{results["n_updates"]} updates in {minutes} min {seconds} s; best on validation: '
              f'{results["valid_score"]:.2f} after {when} (the best constant answer: {results["valid_trivial"]:.2f})')
    if results['degenerate']:
        run.print('warning: the network gives all validation examples the same answer')
    for what, key in (('log', 'log_path'), ('parameters', 'best_path'), ('predictions', 'submission')):
        if key in results:
            run.print(f'{what}: {results[key]}')
    return SimpleNamespace(**results)


def task_of(args):
    """The task of --dataset."""
    return own.open_own(args) if args.dataset == 'own' else TASKS[args.dataset]


def logits_of(trained, task, split, args, device, autocast):
    """The logits (N, n_out) of a trained network for a Split of its task; args: n_batch, n_gpu, plain."""
    options, n_ctx = trained.options, trained.config['n_ctx']
    encoder = add_special(trained.encoder)
    fields = encode_texts(split.texts, trained.encoder)
    examples = Examples(task.form, fields, split.labels, encoder, n_ctx, options.n_ctx // 2 - 2)
    if examples.n_cut:
        print(f'{examples.n_cut} of {len(examples)} examples are longer than the n_ctx={n_ctx} of the run allows: '
              'their texts are cut')
    module = Losses(trained.model.to(device), 0, args.plain)           # no loss is computed
    return evaluate(module, examples, len(examples), args.n_batch * args.n_gpu, autocast, Ranks())


def predict(args, device, autocast):
    """Load save/DESC and write predictions with probabilities for the examples of one file, labelled or not."""
    trained = open_trained(args)
    task, scale = task_of_run(trained), trained.config.get('scale')
    split = task.read(args.predict, trained.options)
    for note in split.notes:
        print(f'warning: {note}')
    logits = logits_of(trained, task, split, args, device, autocast)
    stem = os.path.splitext(os.path.basename(args.predict))[0]
    path = os.path.join(args.submission_dir, f'{args.desc}-{stem}.tsv')
    for earlier in set_aside([path]):
        print(f'earlier predictions are now in {earlier}')
    write_predictions(path, written(task, logits, scale), task.classes, logits.softmax(1).tolist())
    values = {}
    if split.labels is not None:
        values = scores(task.metrics, standardised(split.labels, scale), predictions_of(task, logits))
    print(f'predictions: {path}' + ''.join(f'; {name} {value:.2f}' for name, value in values.items()))
    return SimpleNamespace(path=path, logits=logits, scores=values, accuracy=values.get('accuracy'))


def task_of_run(trained):
    """The task that a network was trained on, with the classes that it knows."""
    dataset, config = trained.options.dataset, trained.config
    if dataset == 'own':
        return own.task_of_run(config)
    if dataset not in TASKS:
        raise ValueError(f'config.json: the run was trained on {dataset}, which this program does not know')
    return TASKS[dataset]._replace(form=config['form'], classes=tuple(config['classes']))


def options_of_seed(args, seed):
    """The options of one run of --seeds: what --seed and --desc alone would have given."""
    desc = f'{args.desc}-{seed}'
    return Namespace(**{**vars(args), 'seeds': None, 'seed': seed, 'desc': desc,
                                 'submission_dir': os.path.join(args.submission_dir, desc)})


def smaller_towers(args):
    """What to say when memory runs out: the same training in smaller towers, if they have more than one example."""
    for part in range(2, args.n_batch + 1):
        if args.n_batch % part == 0:
            return (f'--n_batch {args.n_batch // part} --n_gpu {args.n_gpu * part} is the same training and takes less '
                    'memory')
    return ''


def main(args):
    """Train, or predict with --predict; returns the results, a list of them with --seeds."""
    ranks = Ranks()
    if args.n_gpu % ranks.size:
        raise ValueError(f'{ranks.size} processes cannot share --n_gpu {args.n_gpu} towers equally')
    device, autocast = device_of(args, ranks.device(args.device))
    if args.predict:
        if ranks.size > 1:
            raise ValueError('--predict runs in one process: start it without torchrun')
        return predict(args, device, autocast)
    task = task_of(args)
    ranks.join(device)
    try:
        ranks.agree('values of --dtype', args.dtype)                   # auto may be another one on another machine
        data = load_data(args, task)
        for warning in data.warnings if ranks.rank == 0 else ():
            print(f'warning: {warning}')
        with memory_advice(smaller_towers(args)):
            if args.seeds is None:
                return fine_tune(args, task, data, device, autocast, ranks)
            runs = [fine_tune(options_of_seed(args, seed), task, data, device, autocast, ranks) for seed in args.seeds]
        if ranks.rank == 0:
            for kind in ('valid', 'test'):
                print(f'{kind} {task.metrics[0]}: {analysis.describe([getattr(run, kind + "_score") for run in runs])}')
        return runs
    finally:
        ranks.leave()


if __name__ == '__main__':
    run_script(main, args)
