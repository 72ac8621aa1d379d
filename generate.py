"""The network as a language model: continue a prompt, score texts, and the paper's zero-shot heuristics.

    python generate.py --prompt "once upon a time" --topk 40        # without --prompt: a prompt a line, to end of file
    python generate.py --score FILE                                 # log-probability and perplexity of each line
    python generate.py --zero_shot cloze --data_dir data/sample/    # accuracy without training; also sst2, winograd

The released weights lie in --model_path; --desc RUN takes a network that train.py fine-tuned. Only tokens of the
vocabulary are drawn and scored, never special or position rows. There is no start token: an empty prompt continues a
new line, and the first token of a text has no probability. Logarithms are natural (nats).
"""

import argparse
import math
import os
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from checkpoint import load_parameters, load_state, read_config
from datasets import SPECIAL
from device import add_device_args, choose_device
from model_pytorch import DEFAULT_CONFIG, LMModel, load_openai_pretrained_model, read_shapes
from text_utils import TextEncoder
from utils import Parser, add_model_args, add_path_args, defaults_of_model, finish_paths, run_script
from zero_shot import ZERO_SHOT, mean_log_probs, score_texts, with_positions


def parse_args(argv=None):
    parser = Parser(__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--prompt', help='text to continue; without it, every line of standard input is one')
    group.add_argument('--score', metavar='FILE', help='log-probability and perplexity of each line, and of all')
    group.add_argument('--zero_shot', choices=ZERO_SHOT, help='accuracy of a heuristic of section 5 of the paper')
    group = parser.add_argument_group('generation')
    group.add_argument('--gen_len', type=int, default=40, help='tokens to add, as far as n_ctx allows')
    group.add_argument('--temperature', type=float, default=1., help='divides the logits; 0 is --greedy')
    group.add_argument('--topk', type=int, default=0, help='draw from this many tokens; 0: from all')
    group.add_argument('--topp', type=float, default=1., help='nucleus: draw from the fewest tokens that together have '
                       'this probability')
    group.add_argument('--greedy', action='store_true', help='always take the most probable token')
    group.add_argument('--num_samples', type=int, default=1, help='made side by side; a single one is shown as it '
                       'comes')
    group.add_argument('--seed', type=int, default=42, help='of the draws')
    group = parser.add_argument_group('scoring')
    group.add_argument('--per_token', action='store_true', help='with --score, a line for each token too')
    group.add_argument('--data_dir', default='data/', help='with --zero_shot, the folder with the Story Cloze files, '
                       "GLUE's dev.tsv (sentence, label) or winograd.tsv (sentence with _ for the pronoun, candidate1, "
                       'candidate2, label 1 or 2); header first, tabs between')
    group = parser.add_argument_group('a fine-tuned network')
    group.add_argument('--desc', help='the run of train.py to take, instead of the weights in --model_path')
    group.add_argument('--save_dir', default='save/', help='the --save_dir of that run')
    add_path_args(parser)
    add_model_args(parser, DEFAULT_CONFIG)
    add_device_args(parser)
    defaults_of_model(parser, argv)
    return finish_paths(parser.parse_args(argv))


def load_model(args):
    """The network that the options name, an LMModel in evaluation mode, and its vocabulary, a TextEncoder."""
    if args.desc:
        folder = os.path.join(args.save_dir, args.desc)
        config, path = read_config(folder), os.path.join(folder, 'best_params.pt')
        state = load_state(path)
        n_vocab, options = config['n_vocab'], argparse.Namespace(**config['options'])
        model = LMModel(options, vocab=n_vocab + len(SPECIAL) + config['n_ctx'], n_ctx=config['n_ctx'])
        load_parameters(model, {name: p for name, p in state.items() if not name.startswith('task_head')}, path)
    else:
        options, ((n_stored, _), (n_vocab, _), *_) = args, read_shapes(args.model_path)
        n_ctx = min(args.n_ctx, n_stored)
        model = LMModel(args, vocab=n_vocab + n_ctx, n_ctx=n_ctx)
        load_openai_pretrained_model(model, n_ctx=n_ctx, n_transfer=args.n_layer, path=args.model_path)
    encoder = TextEncoder(options.encoder_path, options.bpe_path)
    if encoder.n_vocab != n_vocab:
        raise ValueError(f'{options.encoder_path} has {encoder.n_vocab} tokens, the weights have {n_vocab}: '
                         'vocabulary and weights do not belong together')
    return model.eval(), encoder


class CachedModel:
    """The network fed a few steps at a time: the keys and values of earlier steps are kept, not computed again."""

    def __init__(self, transformer, n_vocab: int, n_samples: int = 1):
        self.transformer, self.tokens, self.length = transformer, transformer.embed.weight[:n_vocab], 0
        C, H = self.tokens.size(1), transformer.h[0].attn.n_head
        self.cache = self.tokens.new_zeros(len(transformer.h), 2, n_samples, H, transformer.n_ctx, C // H)

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        """Logits (N, n_vocab) after T more steps (N, T). N is n_samples, or 1 for steps that all samples share."""
        start, end = self.length, self.length + ids.size(1)
        seen = torch.ones(end - start, end, dtype=torch.bool, device=ids.device).tril(start)          # (T, end)
        h = F.embedding(with_positions(self.transformer, ids, start), self.transformer.embed.weight).sum(dim=2)
        for block, (keys, values) in zip(self.transformer.h, self.cache, strict=True):
            q, k, v = block.attn.split_heads(block.attn.c_attn(h))     # each (N, H, T, C/H)
            keys[:, :, start:end], values[:, :, start:end] = k, v
            k, v = (t[:len(ids), :, :end].to(q.dtype) for t in (keys, values))                        # (N, H, end, C/H)
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            n = block.ln_1(h + block.attn.c_proj(block.attn.merge_heads(a)))
            h = block.ln_2(n + block.mlp(n))
        self.length = end
        return F.linear(h[:, -1], self.tokens).float()


def logits_to_probs(logits: Tensor, temperature: float = 1., topk: int = 0, topp: float = 1.) -> Tensor:
    """Logits (N, V) to the probabilities (N, V) to draw from: temperature first, then top-k, then the nucleus.

    temperature 0: all on the most probable token. topk 0: no limit. topp: the fewest tokens that together have at least
    this probability.
    """
    if not (0 <= temperature < math.inf and topk >= 0 and 0 < topp <= 1):
        raise ValueError(f'temperature={temperature}, topk={topk}, topp={topp}: want temperature >= 0, topk >= 0 and '
                         '0 < topp <= 1')
    if temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.size(-1)).float()
    probs = F.softmax((logits - logits.amax(-1, keepdim=True)) / temperature, dim=-1)
    if topk or topp < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        ordered[:, topk or len(ordered[0]):] = 0
        before = (ordered.cumsum(-1) - ordered) / ordered.sum(-1, keepdim=True)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered.masked_fill(before >= topp, 0))
    return probs / probs.sum(-1, keepdim=True)


def sample(transformer, n_vocab: int, prompt: list[int], gen_len: int, n_samples: int = 1, temperature: float = 1.,
           topk: int = 0, topp: float = 1., seed: int = 42):
    """Continue the ids `prompt`: yields the next id of each sample, (n_samples,), gen_len times or until n_ctx is full.
    """
    if not 1 <= len(prompt) < transformer.n_ctx:
        raise ValueError(f'the prompt has {len(prompt)} tokens, but n_ctx={transformer.n_ctx} leaves room for 1 to '
                         f'{transformer.n_ctx - 1}: give another prompt')
    if gen_len < 1 or n_samples < 1:
        raise ValueError(f'gen_len={gen_len}, n_samples={n_samples}: both must be at least 1')
    model = CachedModel(transformer, n_vocab, n_samples)
    device = model.tokens.device
    generator = torch.Generator(device).manual_seed(seed)
    ids = torch.tensor([prompt], device=device)                        # (1, T), shared
    for _ in range(min(gen_len, transformer.n_ctx - len(prompt))):
        probs = logits_to_probs(model(ids), temperature, topk, topp)   # (1, V) at first
        ids = torch.multinomial(probs.expand(n_samples, -1), 1, generator=generator)
        yield ids.squeeze(1)


def continue_prompt(model, encoder, prompt: str, args, seed: int) -> list[str]:
    """Print and return --num_samples continuations of a prompt; a single one is printed word by word."""
    [ids] = encoder.encode([prompt], verbose=False)
    if not ids and '\n</w>' not in encoder.encoder:
        raise ValueError('the prompt is empty and the vocabulary has no new line to start from: give a word')
    ids = ids or [encoder.encoder['\n</w>']]
    samples, shown = [[] for _ in range(args.num_samples)], ''
    for step in sample(model.transformer, encoder.n_vocab, ids, args.gen_len, args.num_samples,
                       0. if args.greedy else args.temperature, args.topk, args.topp, seed):
        for so_far, i in zip(samples, step.tolist(), strict=True):
            so_far.append(i)
        if len(samples) == 1 and encoder.decoder[samples[0][-1]].endswith('</w>'):
            text = encoder.decode(samples[0])
            if text.startswith(shown):                                 # the usual case: a word more, the rest the same
                print(text[len(shown):], end='', flush=True)
                shown = text
    texts = [encoder.decode(so_far) for so_far in samples]
    if len(texts) == 1:
        print(texts[0][len(shown):] if texts[0].startswith(shown) else '\n' + texts[0])
    else:
        for number, text in enumerate(texts, start=1):
            print(f'--- sample {number} ---\n{text}')
    if len(samples[0]) < args.gen_len:
        print(f'stopped after {len(samples[0])} of {args.gen_len} tokens: with the {len(ids)} of the prompt they fill '
              f'n_ctx={model.transformer.n_ctx}', file=sys.stderr)
    return texts


def continue_lines(model, encoder, args) -> list[str]:
    """`continue_prompt` for each line of standard input; at a terminal, a bad prompt does not end the session."""
    terminal, texts = sys.stdin.isatty(), []
    if terminal:
        print('Type a prompt and press return; Ctrl-D ends.', file=sys.stderr)
    for number, line in enumerate(line for line in sys.stdin if line.strip()):
        try:
            texts += continue_prompt(model, encoder, line, args, args.seed + number)
        except ValueError as e:
            if not terminal:
                raise ValueError(f'prompt {number + 1}: {e}') from None
            print(e, file=sys.stderr)
    return texts


def read_lines(path: str):
    """Numbers and texts of the lines of a file that are not blank."""
    try:
        with open(path, encoding='utf-8-sig') as f:
            lines = [(number, line) for number, line in enumerate(f, start=1) if line.strip()]
    except UnicodeDecodeError as e:
        raise ValueError(f'{path}: {e.reason} at byte {e.start}: not UTF-8 text') from None
    if not lines:
        raise ValueError(f'{path} has no text')
    return zip(*lines, strict=True)


def score(model, encoder, args) -> list[Tensor]:
    """Print and return the log-probabilities of the tokens of each line; tokens that have none are not counted."""
    numbers, lines = read_lines(args.score)
    ids = encoder.encode(lines, verbose=False)
    scores = score_texts(model.transformer, encoder.n_vocab, ids)
    print('line\ttokens\tlog-probability (nats)\tper token\tperplexity')
    for number, line, found in zip((*numbers, 'total'), (*ids, []), (*scores, torch.cat(scores)), strict=True):
        if args.per_token:
            for i, p in zip(line[1:], found.tolist(), strict=False):
                print(f'\t{encoder.decoder[i]!r}\t{p:.4f}')
        mean = found.double().mean()                                   # not a number where a line is a single token
        print(f'{number}\t{len(found)}\t{found.double().sum():.4f}\t{mean:.4f}\t{(-mean).exp():.2f}')
    return scores


def zero_shot(model, encoder, args) -> list[float]:
    """Print and return the accuracy, in percent, on each file of a task."""
    accuracies = []
    for path, problems, labels in ZERO_SHOT[args.zero_shot](args.data_dir):
        scores, n_cut = mean_log_probs(model.transformer, encoder, problems)
        accuracies.append((scores.argmax(1) == torch.tensor(labels)).double().mean().item() * 100)
        print(f'{args.zero_shot} accuracy {accuracies[-1]:.2f} on {len(labels)} examples of {path}'
              + (f'; {n_cut} did not fit n_ctx={model.transformer.n_ctx}, so their beginnings were cut' * bool(n_cut)))
    return accuracies


def main(args):
    """Do what the options ask for; returns the texts, the log-probabilities of each line, or the accuracies."""
    device, ctx = choose_device(args.device, args.dtype)
    model, encoder = load_model(args)
    model.to(device)
    with ctx:
        if args.score:
            return score(model, encoder, args)
        if args.zero_shot:
            return zero_shot(model, encoder, args)
        if args.prompt is not None:
            return continue_prompt(model, encoder, args.prompt, args, args.seed)
        return continue_lines(model, encoder, args)


if __name__ == '__main__':
    run_script(main, parse_args)
