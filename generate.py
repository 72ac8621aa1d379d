"""The network as a language model: continue a prompt, or score the lines of a file.

    python generate.py --prompt "once upon a time" --topk 40        # without --prompt: each line of standard input
    python generate.py --score FILE                                 # log-probability and perplexity of each line

The network comes from a folder of weights in the released layout, --model_path, or from a trained run, --desc. Only
tokens of the vocabulary are drawn and scored, never special or position rows. There is no start token: an empty prompt
stands for a newline, and the first token of a text has no probability. Logarithms are natural (nats).
"""

from common import options
from common.options import Parser, number, parse_trained_args, refuse_options
from common.shell import begin_script, printable, run_script


def parse_args(argv=None):
    """The options. Those that would have no effect are refused."""
    parser = Parser('generate.py', __doc__, '[--prompt TEXT | --score FILE] ')
    group = parser.add_argument_group('what to do').add_mutually_exclusive_group()
    group.add_argument('--prompt', metavar='TEXT', help='text to continue (default: each line of standard input)')
    group.add_argument('--score', metavar='FILE', help='print log-probability and perplexity of each line and in total')
    group = parser.add_argument_group('generation')
    group.add_argument('--gen_len', type=number(int, 1), default=40, help='number of tokens to add, limited by n_ctx')
    group.add_argument('--temperature', type=float, default=1., help='divides the logits; 0 is the same as --greedy')
    group.add_argument('--topk', type=int, default=0, help='draw from the k most probable tokens; 0: from all')
    group.add_argument('--topp', type=float, default=1., help='draw from the fewest tokens with this total probability')
    group.add_argument('--greedy', action='store_true', help='always take the most probable token')
    group.add_argument('--n_samples', type=number(int, 1, 10001), default=1, help='continuations of each prompt')
    group.add_argument('--seed', type=number(int, 0, 2**32), default=42, help='seed of the random draws')
    group = parser.add_argument_group('scores')
    group.add_argument('--per_token', action='store_true', help='with --score, also print a line for each token')
    options.add_network_args(parser, 'model/', 'the weights, in the released layout')
    options.add_dropout_args(parser, hidden=True)
    options.add_computing_args(parser)
    args, given = parse_trained_args(parser, argv)
    if args.score:
        draws = ('gen_len', 'temperature', 'topk', 'topp', 'greedy', 'n_samples', 'seed')
        refuse_options(given, draws, 'with --score')
    else:
        refuse_options(given, ('per_token',), 'without --score')
    return args


if __name__ == '__main__':
    args = begin_script(parse_args)  # before the slow imports: --help is quick

import io
import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

import fast
from common.device import device_of
from common.trained import open_trained
from model_pytorch import look_up
from utils import read_text
from zero_shot import score_texts, with_positions


class CachedModel:
    """The network with a cache: it keeps the keys and values of earlier steps, and computes only the new steps."""

    def __init__(self, transformer, n_vocab: int, n_samples: int = 1):
        fast.check_evaluates(transformer)
        self.transformer, self.tokens, self.length = transformer, transformer.embed.weight[:n_vocab], 0
        C, H = self.tokens.size(1), transformer.h[0].attn.n_head
        self.cache = self.tokens.new_zeros(len(transformer.h), 2, n_samples, H, transformer.n_ctx, C // H)

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        """Logits (N, n_vocab) after T more steps (N, T). N is n_samples, or 1 for steps that all samples share."""
        start, end = self.length, self.length + ids.size(1)
        visible = torch.ones(end - start, end, dtype=torch.bool, device=ids.device).tril(start)  # (T, end)
        h = look_up(with_positions(self.transformer, ids, start), self.transformer.embed.weight)
        for block, (keys, values) in zip(self.transformer.h, self.cache, strict=True):
            q, k, v = block.attn.split_heads(block.attn.c_attn(h))  # each (N, H, T, C/H)
            keys[:, :, start:end], values[:, :, start:end] = k, v
            k, v = (t[:len(ids), :, :end].to(q.dtype) for t in (keys, values))  # (N, H, end, C/H)
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
            n = block.ln_1(h + block.attn.c_proj(block.attn.merge_heads(a)))
            h = block.ln_2(n + block.mlp(n))
        self.length = end
        return fast.product(h[:, -1], self.tokens.T).float()


def logits_to_probs(logits: Tensor, temperature: float = 1., topk: int = 0, topp: float = 1.) -> Tensor:
    """Logits (N, V) to the probabilities (N, V) to draw from: first temperature, then top-k, then top-p (nucleus).

    temperature 0: only the most probable token. topk 0: no limit. topp: the fewest tokens with this total probability.
    """
    if not (0 <= temperature < math.inf and topk >= 0 and 0 < topp <= 1):
        raise ValueError(f'temperature={temperature}, topk={topk}, topp={topp}: want temperature >= 0, topk >= 0 and '
                         '0 < topp <= 1')
    if temperature < torch.finfo(logits.dtype).tiny:  # a division by it would overflow
        return F.one_hot(logits.argmax(-1), logits.size(-1)).float()
    probs = F.softmax((logits - logits.amax(-1, keepdim=True)) / temperature, dim=-1)
    if topk or topp < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        if topk:
            ordered[:, min(topk, ordered.size(-1)):] = 0
        sums = ordered.cpu().cumsum(-1).to(ordered.device)  # CUDA's cumsum is not deterministic
        before = (sums - ordered) / ordered.sum(-1, keepdim=True)
        probs = torch.zeros_like(probs).scatter(-1, order, ordered.masked_fill((before >= topp) & (before > 0), 0))
    return probs / probs.sum(-1, keepdim=True)


def sample(transformer, n_vocab: int, prompt: list[int], gen_len: int, n_samples: int = 1, temperature: float = 1.,
           topk: int = 0, topp: float = 1., seed: int = 42):
    """Continue the ids `prompt`: yield the next ids, (n_samples,), gen_len times or until n_ctx is full."""
    if not 1 <= len(prompt) < transformer.n_ctx:
        raise ValueError(f'the prompt has {len(prompt)} tokens, but n_ctx={transformer.n_ctx} leaves room for 1 to '
                         f'{transformer.n_ctx - 1}: give another prompt')
    model = CachedModel(transformer, n_vocab, n_samples)
    device = model.tokens.device
    generator = torch.Generator(device).manual_seed(seed)
    ids = torch.tensor([prompt], device=device)  # (1, T), shared by all samples
    for _ in range(min(gen_len, transformer.n_ctx - len(prompt))):
        logits = model(ids)  # (1, V) at first, then (n_samples, V)
        if not logits.isfinite().all():
            raise ArithmeticError('logits are not finite: try --dtype float32')
        probs = logits_to_probs(logits, temperature, topk, topp)
        ids = torch.multinomial(probs.expand(n_samples, -1), 1, generator=generator)
        yield ids.squeeze(1)


def continue_prompt(transformer, encoder, prompt: str, args, seed: int) -> list[str]:
    """Print and return --n_samples continuations of a prompt."""
    if any('\ud800' <= char <= '\udfff' for char in prompt):  # how Python reads bytes that it cannot decode
        raise ValueError('the prompt is not UTF-8 text')
    [ids] = encoder.encode([prompt], verbose=False)
    if not ids and '\n</w>' not in encoder.encoder:
        raise ValueError('the prompt is empty and the vocabulary has no newline to start from: give a word')
    ids = ids or [encoder.encoder['\n</w>']]
    steps = list(sample(transformer, encoder.n_vocab, ids, args.gen_len, args.n_samples,
                        0. if args.greedy else args.temperature, args.topk, args.topp, seed))
    texts = [encoder.decode(sample_ids) for sample_ids in torch.stack(steps, dim=1).tolist()]
    for i, text in enumerate(texts, start=1):
        print(printable(text if len(texts) == 1 else f'--- sample {i} ---\n{text}'), flush=True)
    if len(steps) < args.gen_len:
        print(f'stopped after {len(steps)} of {args.gen_len} tokens: with the {len(ids)} of the prompt they fill '
              f'n_ctx={transformer.n_ctx}', file=sys.stderr)
    return texts


def continue_lines(transformer, encoder, args) -> list[str]:
    """`continue_prompt` for each line of standard input that is not blank."""
    if sys.stdin.isatty():
        print('Type a prompt and press return; Ctrl-D ends.', file=sys.stderr)
    texts = []
    try:
        for i, line in enumerate(filter(str.strip, sys.stdin)):
            texts += continue_prompt(transformer, encoder, line, args, args.seed + i)
    except UnicodeDecodeError as e:
        raise ValueError(f'standard input is not {e.encoding} text: {e.reason}') from None
    except ValueError as e:
        raise ValueError(f'prompt {i + 1}: {e}') from None
    return texts


def print_scores(name, scores: Tensor):
    """Print a row of the table of --score. Without tokens, mean and perplexity are nan."""
    mean = scores.double().mean()
    print(f'{name}\t{len(scores)}\t{scores.double().sum():.4f}\t{mean:.4f}\t{(-mean).exp():.2f}')


def score_file(transformer, encoder, args) -> list[Tensor]:
    """Print and return the log-probabilities of the tokens of each line except its first token, which has none."""
    lines = enumerate(io.StringIO(read_text(args.score), newline=None), start=1)  # newline=None: \n, \r\n and \r
    lines = [(i, line) for i, line in lines if line.strip()]
    if not lines:
        raise ValueError(f'{args.score} has no text')
    ids = encoder.encode([line for _, line in lines], verbose=False)
    scores = score_texts(transformer, encoder.n_vocab, ids)
    print('line\ttokens\tlog-probability (nats)\tper token\tperplexity')
    for (line_number, _), line_ids, line_scores in zip(lines, ids, scores, strict=True):
        if not line_ids:
            print(f'{args.score}, line {line_number}: no tokens, so no score', file=sys.stderr)
        if args.per_token:
            for i, p in zip(line_ids[1:], line_scores.tolist(), strict=True):
                print(printable(f'\t{encoder.decoder[i]!r}\t{p:.4f}'))
        print_scores(line_number, line_scores)
    print_scores('total', torch.cat(scores))
    return scores


def main(args):
    """Returns the texts, with --score the log-probabilities of each line."""
    device, autocast = device_of(args)
    trained = open_trained(args)
    transformer, encoder = fast.use_fast_layers(trained.model.to(device).transformer), trained.encoder
    with autocast:
        if args.score:
            return score_file(transformer, encoder, args)
        if args.prompt is not None:
            return continue_prompt(transformer, encoder, args.prompt, args, args.seed)
        return continue_lines(transformer, encoder, args)


if __name__ == '__main__':
    run_script(main, args)
