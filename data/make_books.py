"""Make clean text for pretrain.py: `python data/make_books.py classic-books-markdown/ books/`.

The collection is github.com/mlschmitt/classic-books-markdown at commit 9448827: one Markdown file a book,
Author/Title.md, all in the public domain. What is kept is narrative prose, as in the paper's BooksCorpus (section 4.1):
books/train/ has one text file a book and one line a paragraph, books/held_out/ the same for authors whom the network
shall not read. The files are the same each time; the hash that is printed at the end tells whether they are those that
model/books was trained on.
"""

import argparse
import hashlib
import html
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.shell import one_line_errors
from utils import make_path, read_text

# The copy of the collection that model/books was trained on ended with this author (638 of 756 books). Later authors
# have not been looked at for treatises, verse and plays: raise this only together with LEFT_OUT.
LAST_AUTHOR = 'Samuel Butler'

# Books that the network does not read: 16 authors drawn by random.Random(0).sample from those with one book.
HELD_OUT = (
    'Anna Adolph', 'Boyd Ellanby', 'Charlotte Dacre', 'Emma Orczy', 'Gaston Leroux', 'Giovanni Boccaccio',
    'Harriet Jacobs', 'Ivan Bunin', 'Jean Toomer', 'John Ames Mitchell', 'John Reed', 'Marcel Proust',
    'Mary E. Bradley Lane', 'Mary Johnston', 'Mary Kingsley', 'R.D. Blackmore')

LEFT_OUT = Path(__file__).with_name('books_left_out.txt')  # treatises, verse, plays, old English, doubles

MARKUP = [(re.compile(pattern), to) for pattern, to in (
    (r'<!--.*?-->|</?[a-zA-Z][^<>\n]*>', ''),              # HTML
    (r'!\[[^\]]*\]\([^)]*\)', ''),                         # pictures
    (r'\[([^\]]*)\]\([^)]*\)', r'\1'),                     # links: their text stays
    (r'\[(?:\d+|\*|[Ii]llustration[^\]]*|[Ff]ootnote[^\]]*|FN[^\]]*|_?sic_?)\]', ''),       # notes and their marks
    (r'\\(?=[^\w\s])', ''),                                # a backslash before a mark
    (r'\[[^\]]*\d[:.]\d[^\]]*\]', ''),                     # verses of the Bible
    (r'[*_`\ufeff\u00ad]', ''),                            # emphasis, and marks that nobody sees
)]
NOT_PROSE = re.compile(r'\W*(the end|finis|fin|contents|transcriber.s notes?\b.*|.*project gutenberg.*)\W*', re.I)


def paragraphs(markdown: str) -> list[str]:
    """The prose of a book, a line each: without its head, headings, tables, rules, notes and Markdown."""
    body = re.split(r'^-{3,}\s*$', markdown, maxsplit=1, flags=re.M)[-1]
    lines = ['' if re.match(r'\s*#|\s*\||[-|:\s]+$|\s*([*_-]\s*){3,}$', line) else line for line in body.split('\n')]
    found = []
    for block in re.split(r'\n\s*\n', '\n'.join(lines)):
        text = ' '.join(re.sub(r'^\s*(>\s*)*([*+-]\s+)?', '', line) for line in block.split('\n'))
        text = html.unescape(text)
        for pattern, to in MARKUP:
            text = pattern.sub(to, text)
        text = ' '.join(text.split())
        if re.search('[a-z]', text) and not NOT_PROSE.fullmatch(text):         # others are headings
            found.append(text)
    return found


def make_books(collection: str, folder: str) -> tuple[dict, str]:
    """Write the books; returns {'train': (books, bytes), 'held_out': ...} and the hash of all names and texts."""
    paths = sorted(Path(collection).glob('*/*.md'), key=lambda path: path.relative_to(collection).as_posix())
    names = {re.sub(r'\s+', ' ', path.relative_to(collection).as_posix().removesuffix('.md')).strip(): path
             for path in paths if path.parent.name <= LAST_AUTHOR}
    left_out = {line for line in read_text(LEFT_OUT).splitlines() if line and not line.startswith('#')}
    missing = sorted(left_out - {*names}) + sorted({*HELD_OUT} - {path.parent.name for path in names.values()})
    if missing:
        raise ValueError(f'{collection} lacks {len(missing)} books of the collection, for example {missing[0]}: '
                         'git clone https://github.com/mlschmitt/classic-books-markdown, then git checkout 9448827')
    counts, digest = {}, hashlib.sha256()
    for name, path in names.items():
        if name in left_out:
            continue
        split = 'held_out' if path.parent.name in HELD_OUT else 'train'
        text = '\n'.join(paragraphs(path.read_text(encoding='utf-8'))) + '\n'
        target = f'{split}/{name.replace("/", " - ").replace(":", "")}.txt'    # Windows has no colons in names
        Path(make_path(os.path.join(folder, target))).write_text(text, encoding='utf-8', newline='\n')
        digest.update(f'{target}\0{text}\0'.encode())
        n_books, n_bytes = counts.get(split, (0, 0))
        counts[split] = n_books + 1, n_bytes + len(text.encode())
    return counts, digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('collection', help='checkout of the collection')
    parser.add_argument('folder', help='where the texts go')
    args = parser.parse_args()
    counts, digest = make_books(args.collection, args.folder)
    for split, (n_books, n_bytes) in counts.items():
        print(f'{os.path.join(args.folder, split)}: {n_books} books, {n_bytes:,} bytes')
    print(f'sha256 of names and texts: {digest}')


if __name__ == '__main__':
    with one_line_errors():
        main()
