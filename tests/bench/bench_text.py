"""Time of encoding all stories: a plain loop over today's spaCy, ftfy and the original's BPE against our encode.

    python tests/bench/bench_text.py DATA_DIR [--model_path model/]

DATA_DIR is a folder with the two Story Cloze files. Both start with empty caches; imports and loading are not counted.
"""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from test_text_utils import plain_bpe, plain_standardize  # noqa: E402

from datasets import find_cloze_file, read_cloze  # noqa: E402
from text_utils import TextEncoder, load_ftfy, load_rules  # noqa: E402


def plain_loop(texts, encoder, nlp):
    """Ids as the original computes them, with the tokenizer of today's spaCy."""
    fix_text, cache, encoded = load_ftfy(), {}, []
    for text in texts:
        ids = []
        for token in nlp(plain_standardize(fix_text(text))):
            token = token.text.lower()
            if token not in cache:
                cache[token] = plain_bpe(token, encoder.bpe_ranks).split(' ')
            ids += [encoder.encoder.get(symbol, 0) for symbol in cache[token]]
        encoded.append(ids)
    return encoded


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_dir')
    parser.add_argument('--model_path', default='model/', help='folder with the vocabulary and the merges')
    args = parser.parse_args()
    texts = [text for kind in ('val', 'test') for field in read_cloze(find_cloze_file(args.data_dir, kind))[:3]
             for text in field]

    def new_encoder():
        return TextEncoder(os.path.join(args.model_path, 'encoder_bpe_40000.json'),
                           os.path.join(args.model_path, 'vocab_40000.bpe'))

    import spacy
    nlp, encoder = spacy.blank('en'), new_encoder()
    load_rules()
    start = time.perf_counter()
    plain = plain_loop(texts, encoder, nlp)
    plain_time = time.perf_counter() - start
    times = []
    for _ in range(3):
        encoder = new_encoder()
        start = time.perf_counter()
        ours = encoder.encode(texts, verbose=False)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    encoder.encode(texts, verbose=False)
    again = time.perf_counter() - start
    other = sum(a != b for a, b in zip(plain, ours, strict=True))
    print(f'{len(texts)} texts, {sum(map(len, ours))} ids; other ids from today\'s tokenizer in {other} texts')
    print(f'plain loop {plain_time:.2f} s; ours {min(times):.2f} s (best of {len(times)}), '
          f'{plain_time / min(times):.1f}x; a second time {again:.3f} s')


if __name__ == '__main__':
    main()
