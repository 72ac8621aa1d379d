"""Time of encoding all stories: a plain loop over today's spaCy, ftfy and the original's BPE against our encode.

    python scripts/bench_text.py DATA_DIR [--model_path model/]

DATA_DIR is a folder with the two Story Cloze files. Both start with empty caches; imports and loading are not counted.
"""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

from test_text_utils import plain_bpe, plain_standardize

from datasets import find_cloze_file, read_cloze
from text_utils import TextEncoder, load_ftfy, load_rules


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
    paths = [os.path.join(args.model_path, name) for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe')]
    try:
        texts = [text for kind in ('val', 'test') for field in read_cloze(find_cloze_file(args.data_dir, kind))[:3]
                 for text in field]
        TextEncoder(*paths)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    import spacy
    load_rules()
    plain_times, times, times_again = [], [], []
    for _ in range(3):
        encoder, nlp = TextEncoder(*paths), spacy.blank('en')
        start = time.perf_counter()
        plain = plain_loop(texts, encoder, nlp)
        plain_times.append(time.perf_counter() - start)
        for measured in (times, times_again):
            start = time.perf_counter()
            ours = encoder.encode(texts, verbose=False)
            measured.append(time.perf_counter() - start)
    other = sum(a != b for a, b in zip(plain, ours, strict=True))
    print(f"{len(texts)} texts, {sum(map(len, ours))} ids; today's tokenizer gives other ids for {other} texts")
    print(f'best of {len(times)}: plain loop {min(plain_times):.2f} s; ours {min(times):.2f} s, '
          f'{min(plain_times) / min(times):.1f}x; a second time {min(times_again):.3f} s')


if __name__ == '__main__':
    main()
