"""From a trained network to predictions: logits of examples, scores, files of predictions (`train.py --predict`)."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from tqdm import tqdm

import fast
from common.checkpoint import set_aside
from common.examples import Examples, encode_texts, unfamiliar
from common.trained import add_special, open_trained
from loss import task_losses
from model_pytorch import MultipleChoiceHead
from tasks import TASKS, own
from tasks.metrics import has_label, scores
from utils import write_whole

FARTHEST = 1e15  # deviations; float32 holds numbers up to 3e38, and this one's square


def evaluate(run, model, examples, n, check=None):
    """Task logits (n, n_out) of the first n examples, in evaluation mode; batches are spread over the processes.

    run: a `Run`, which need not have begun. check: called between batches; it may raise to end the run.
    """
    model.eval()
    head, ranks = model.task_head, run.ranks
    device = head.linear.weight.device
    n_out = examples.lengths.shape[1] if isinstance(head, MultipleChoiceHead) else head.linear.out_features
    logits = torch.zeros(n, n_out, device=device)
    batches = examples.batches(n, run.args.n_batch * run.args.n_gpu)[ranks.rank::ranks.size]
    with torch.no_grad(), run.autocast:
        for batch in tqdm(batches, desc='evaluating', ncols=80, leave=False, disable=None):
            if check:
                check()
            X, M = map(torch.from_numpy, examples.batch(batch.flat))  # (G*Q, K, n_ctx, 2), (G*Q, K, n_ctx)
            X, M = (t.reshape(len(batch), -1, *t.shape[2:]) for t in (X, M))  # the choices of a group: (G, Q*K, ...)
            found = model(X.to(device))[1] if run.args.plain else fast.task_logits(model, X, M)
            rows = fast.move(torch.from_numpy(batch.ravel()), device)  # (G*Q,)
            logits[rows] = found.float().view(-1, n_out)
    return ranks.sum(logits).cpu()  # each row was computed by one process and is 0 on the others


def scores_of(task, logits, labels, scale, parts) -> dict:
    """Scores of these logits, for a line of the log: `cost`, the mean loss in nats or squared error; `score`, the
    task's first metric; each metric by its name (accuracy as `acc`); and `score_PART` for each of the parts."""
    predictions = task.predictions(logits, scale)
    values = scores(task.metrics, labels, predictions, task.positive)
    first, scored = task.metrics[0], has_label(labels)
    return (dict(cost=task_losses(logits[scored], torch.from_numpy(labels[scored])).mean().item(), score=values[first])
            | {'acc' if name == 'accuracy' else name: value for name, value in values.items()}
            | {f'score_{part}': scores([first], labels[where], predictions[where], task.positive)[first]
               for part, where in parts.items()})


def standardised(labels, scale):
    """Labels as the network is trained on them: (number - mean) / deviation; class numbers and None as they are.

    ValueError for a number so far from the training examples that its squared error cannot be computed.
    """
    if labels is None or scale is None:
        return labels
    with np.errstate(over='ignore'):
        numbers = (np.array(labels) - scale[0]) / scale[1]
    far = np.nan_to_num(np.abs(numbers)).argmax()  # NaN: no label
    if abs(numbers[far]) > FARTHEST:
        raise ValueError(f'number {labels[far]:g} is too far from those of the training examples, whose mean is '
                         f'{scale[0]:g} and deviation {scale[1]:g}')
    return numbers


def write_predictions(path, values, classes=(), probabilities=()):
    """index<TAB>prediction, as in the original, and the probability of each class. An earlier file is renamed."""
    for earlier in set_aside([path]):
        print(f'earlier predictions are now in {earlier}')
    columns = [f'p{name}' if name.isdigit() else name for name in classes]
    with write_whole(path) as f:
        f.write('\t'.join(['index', 'prediction', *columns]) + '\n')
        for i, value in enumerate(values):
            f.write('\t'.join([str(i), value, *(f'{p:.6f}' for p in (probabilities[i] if classes else ()))]) + '\n')


def task_of_trained(trained):
    """The task that a network was trained on, with the classes that it knows."""
    dataset, config = trained.options.dataset, trained.config
    if dataset == 'own':
        return own.saved_task(config)
    return TASKS[dataset]._replace(form=config['form'], classes=tuple(config['classes']))


def examples_of(trained, task, split) -> Examples:
    """A Split of the task of a trained network as the Examples that it reads."""
    n_ctx, max_len = trained.config['n_ctx'], trained.options.n_ctx // 2 - 2
    fields, encoder = encode_texts(split.texts, trained.encoder), add_special(trained.encoder)
    examples = Examples(task.form, fields, split.labels, encoder, n_ctx, max_len)
    examples.n_ctx = int(examples.lengths.max())  # no more padding than these examples need
    if examples.n_cut:
        print(f'{examples.n_cut} of {len(examples)} examples are longer than the n_ctx={n_ctx} of the run allows: '
              'their texts are cut')
    return examples


def logits_of(run, trained, examples):
    """The logits (N, n_out) of a trained network for `examples_of` its task."""
    model = trained.model.to(run.device)
    return evaluate(run, model if run.args.plain else fast.use_fast_layers(model), examples, len(examples))


def predict(run):
    """Load save/DESC and write predictions with probabilities for the examples of a file, labelled or not."""
    args, trained = run.args, open_trained(run.args)
    task, scale = task_of_trained(trained), trained.config['scale']
    split = task.read(args.predict, trained.options)
    examples, labels = examples_of(trained, task, split), standardised(split.labels, scale)
    for note in (*split.notes, *unfamiliar(examples.fields[0].ids, trained.encoder.encoder)):
        print(f'warning: {note}')
    logits = logits_of(run, trained, examples)
    path = os.path.join(args.submission_dir, f'{args.desc}-{Path(args.predict).stem}.tsv')
    write_predictions(path, task.answers(logits, scale), task.classes, logits.softmax(1).tolist())
    values = {}
    if labels is not None:
        values = scores(task.metrics, labels, task.predictions(logits, scale), task.positive)
    print(f'predictions: {path}' + ''.join(f'; {task.named(name)} {value:.2f}' for name, value in values.items()))
    return SimpleNamespace(path=path, logits=logits, scores=values, accuracy=values.get('accuracy'))
