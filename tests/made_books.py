"""Books of made-up words, as many and as long as wanted: `python tests/made_books.py FOLDER N_FILES [BYTES_OF_ONE]`."""

import sys
from pathlib import Path

import numpy as np

N_WORDS = 200_000                                       # different words, drawn as often as Zipf's law says
COMMON = '''the of and to a in that he was it his her had with as for you not she at is on be him they but i all my
    from so me this which have one there what out if up said were them no when we into their by or then would been who
    do don't didn't it's i'm he'd she'll mr. mrs. dr. could time down like back now well-known'''.split()
ENDS = {' ': 82, ', ': 6, '. ': 4, '.\n': 2, '? ': 1, '!\n': .5, '; ': .3, ' -- ': .3, '... ': .3, '," ': .8,
        '." ': .6, '!"\n\n': .4, '-': .3, ': ': .1, ') ': .1, ' * * *\n\n': .02}
BEGINNINGS = {'': 97.5, '"': 2, '(': .1, "'": .3, '_': .02}
RARE = ['café', 'naïve', 'Brontë', 'AT&T', '&amp;', '3:30', '$4,000', '1984', '42', 'www.a.org', '5km', 'U.S.', '£5',
        'señor', '<i>no</i>', 'Ã©', '日本', 'x@y.org', '3rd', '…']


def words_by_rank(rng):
    """The words, the most frequent first, then the same with a capital: 2 * N_WORDS."""
    syllables = [a + b + c for a in 'b c d f g h l m n p r s t w th st'.split() for b in 'aeiou'
                 for c in ('', '', '', 'n', 'r')]
    words = dict.fromkeys(COMMON)
    while len(words) < N_WORDS:
        n = 1 + (len(words) > 150) + (len(words) > 20_000) + rng.integers(2)
        words[''.join(syllables[i] for i in rng.integers(len(syllables), size=n))] = None
    return np.array([*words, *(word.capitalize() for word in words)], dtype=object)


def table(weights, size=1000):
    """The keys, each as often as its weight says: a drawn index is a drawn key."""
    n = np.round(np.array([*weights.values()]) * size / sum(weights.values())).astype(int).clip(1)
    return np.repeat(np.array([*weights], dtype=object), n)


def write_books(folder, n_files, size=455_000, seed=0):
    """n_files of about `size` bytes, in one folder for each hundred; the same for the same seed. Returns their size.

    Every third book has typographic quotes and dashes, every tenth lines that end in CR and LF. A word in 300 is one
    of RARE, and one in 2000 is new: it occurs only there.
    """
    rng = np.random.default_rng(seed)
    words, ends, beginnings = words_by_rank(rng), table(ENDS), table(BEGINNINGS)
    frequency = (np.arange(N_WORDS) + 2.7) ** -1.15
    ranks, total = rng.choice(N_WORDS, 2 ** 23, p=frequency / frequency.sum()), 0
    for number in range(n_files):
        n = int(size / 5.75 * rng.lognormal(-.125, .5))
        end = ends[rng.integers(len(ends), size=n)]
        starts = np.r_[True, [e[0] in '.?!' for e in end[:-1].tolist()]]
        word = words[ranks[rng.integers(len(ranks), size=n)] + N_WORDS * starts]
        rare, new = rng.integers(n, size=n // 300), rng.integers(n, size=n // 2000)
        word[rare] = np.array(RARE, dtype=object)[rng.integers(len(RARE), size=len(rare))]
        word[new] = [f'{words[a]}{words[b]}' for a, b in rng.integers(len(COMMON), N_WORDS, size=(len(new), 2))]
        text = ''.join((beginnings[rng.integers(len(beginnings), size=n)] + word + end).tolist())
        if number % 3 == 2:
            text = text.replace(' "', ' “').replace('\n"', '\n“').replace('"', '”').replace("'", '’').replace('--', '—')
        if number % 10 == 9:
            text = text.replace('\n', '\r\n')
        path = Path(folder) / f'{number // 100:03}' / f'book{number:05}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        total += path.write_bytes(text.encode())
    return total


if __name__ == '__main__':
    print(f'{write_books(sys.argv[1], *map(int, sys.argv[2:])):,} bytes')
