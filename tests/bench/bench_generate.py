"""Time per token with the key/value cache and without: `python tests/bench/bench_generate.py [--model_path model/]`.

Without --model_path the weights are random, which takes as long. Greedy; both must give the same tokens.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from generate import load_model, parse_args, sample  # noqa: E402
from model_pytorch import DEFAULT_CONFIG, LMModel  # noqa: E402
from scoring import with_positions  # noqa: E402

N_VOCAB = 40478


@torch.no_grad()
def recompute(model, n_vocab, ids, gen_len):
    """Greedy continuation that runs the whole prefix through the plain model for every token."""
    ids = torch.tensor([ids])
    for _ in range(gen_len):
        h = model.transformer(with_positions(model.transformer, ids))
        logits = h[:, -1] @ model.transformer.embed.weight[:n_vocab].T
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        yield ids[0, -1].item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model_path')
    parser.add_argument('--prompt_len', type=int, default=128)
    parser.add_argument('--gen_len', type=int, default=100)
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.model_path:
        model, encoder = load_model(parse_args(['--model_path', args.model_path]))
        n_vocab = encoder.n_vocab
    else:
        model, n_vocab = LMModel(DEFAULT_CONFIG, vocab=N_VOCAB + 512).eval(), N_VOCAB
    prompt = torch.randint(n_vocab, (args.prompt_len,)).tolist()
    times, made = [], []
    for name, run in (('cached', lambda: (i.item() for i in sample(model.transformer, n_vocab, prompt, args.gen_len,
                                                                   temperature=0))),
                      ('recomputed', lambda: recompute(model, n_vocab, prompt, args.gen_len))):
        start = time.perf_counter()
        made.append(list(run()))
        times.append(time.perf_counter() - start)
        print(f'{name}: {times[-1]:.2f} s for {args.gen_len} tokens after {args.prompt_len}, '
              f'{args.gen_len / times[-1]:.1f} tokens/s, {torch.get_num_threads()} threads', flush=True)
    print(f'cached is {times[1] / times[0]:.1f} times as fast; same tokens: {made[0] == made[1]}')


if __name__ == '__main__':
    main()
