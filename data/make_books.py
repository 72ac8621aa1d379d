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
from utils import make_path

# The copy of the collection that model/books was trained on ended with this author (638 of 756 books). Later authors
# have not been looked at for treatises, verse and plays: raise this only together with LEFT_OUT.
LAST_AUTHOR = 'Samuel Butler'

# Books that the network does not read: 16 authors drawn by random.Random(0).sample from those with one book.
HELD_OUT = (
    'Anna Adolph', 'Boyd Ellanby', 'Charlotte Dacre', 'Emma Orczy', 'Gaston Leroux', 'Giovanni Boccaccio',
    'Harriet Jacobs', 'Ivan Bunin', 'Jean Toomer', 'John Ames Mitchell', 'John Reed', 'Marcel Proust',
    'Mary E. Bradley Lane', 'Mary Johnston', 'Mary Kingsley', 'R.D. Blackmore')

LEFT_OUT = {
    'treatises, essays, pamphlets, histories': [
        'A.W. Tozer/The Pursuit of God', 'Adam Smith/The Wealth of Nations',
        'Alexis de Tocqueville/Democracy in America', 'André Breton/Surrealist Manifesto',
        'Aristotle/Nicomachean Ethics', 'Aristotle/Poetics', 'Arrian/Enchiridion of Epictetus',
        'Augustine of Hippo/Confessions of St. Augustine', 'Benedict de Spinoza/The Ethics',
        'Carl von Clausewitz/On War', 'Charles Darwin/On the Origin of Species',
        'Charles Fort/The Book of the Damned', 'Charlotte Perkins Gilman/Women and Economics',
        'Confucius/The Analects', 'David Hume/A Treatise of Human Nature',
        'Donald Keyhoe/The Flying Saucers Are Real', 'Edward J. Ruppelt/The Report on Unidentified Flying Objects',
        'Emma Goldman/Anarchism and Other Essays', 'Ernest Renan/The Life of Jesus',
        'Frederick Douglass/Why Is the Negro Lynched?', 'Frederick Jackson Turner/The Frontier in American History',
        'Friedrich Nietzsche/Beyond Good and Evil', 'Friedrich Nietzsche/Thus Spoke Zarathustra',
        'G.K. Chesterton/All Things Considered', 'H. Addington Bruce/Historic Ghosts and Ghost Hunters',
        'Henry David Thoreau/A Week on the Concord and Merrimack Rivers', 'Henry David Thoreau/Civil Disobedience',
        'Herodotus/The Histories', 'Ida B. Wells/Southern Horrors: Lynch Law in All Its Phases',
        'Immanuel Kant/Critique of Pure Reason', 'Jean-Jacques Rousseau/The Social Contract',
        'John Stuart Mill/On Liberty', 'John Stuart Mill/The Subjection of Women', 'Jonathan Swift/A Modest Proposal',
        'Karl Marx & Friedrich Engels/The Communist Manifesto', 'Laozi/Tao Te Ching',
        'Leo Tolstoy/The Kingdom of God Is Within You', 'Maimonides/The Guide for the Perplexed',
        'Marcus Aurelius/Meditations', 'Margaret Sanger/The Pivot of Civilization',
        'Martin Luther/On the Bondage of the Will', 'Martin V. Ingram/Authenticated History of the Bell Witch',
        'Mary Wollstonecraft/A Vindication of the Rights of Woman', 'Moncure Daniel Conway/Demonology and Devil-lore',
        'Niccolò Machiavelli/The Prince', 'Okakura Kakuzo/The Book of Tea', 'Peter Kropotkin/The Conquest of Bread',
        'Plato/Apology of Socrates', 'Plato/The Republic', 'Publius/The Federalist Papers',
        'Ralph Waldo Emerson/Essays', 'Ralph Waldo Emerson/Nature', 'Rene Descartes/Discourse on the Method',
        'Sabine Baring-Gould/The Book of Were-wolves'],
    'verse, or half of it': [
        'Anonymous/Beowulf', 'Anonymous/Bhagavad Gita', 'Anonymous/The Dhammapada',
        'Charles Baudelaire/Les Fleurs du mal', 'Dante/Paradiso', 'Dante/Purgatorio', 'Dante/The Inferno',
        'Edgar Allan Poe/Poems', 'Edmund Spenser/The Faerie Queene', 'Elizabeth Barrett Browning/Aurora Leigh',
        'Emily Dickinson/Poems: Three Series', 'Ernest Hemingway/Three Stories and Ten Poems',
        'Geoffrey Chaucer/The Canterbury Tales', 'Gertrude Stein/Tender Buttons',
        'Henry Wadsworth Longfellow/Tales of a Wayside Inn', 'John Milton/Paradise Lost', 'Kahlil Gibran/The Prophet',
        'Khalil Gibran/The Madman', 'Ovid/Metamorphoses', 'Rabindranath Tagore/Gitanjali',
        'Robert Frost/New Hampshire', 'Robert W. Service/Songs of a Sourdough'],
    'plays': [
        'Anton Chekhov/The Cherry Orchard', 'Anton Chekhov/The Seagull', 'Aristophanes/Lysistrata',
        'George Bernard Shaw/Man and Superman', 'George Bernard Shaw/Pygmalion', "Henrik Ibsen/A Doll's House",
        'Henrik Ibsen/An Enemy of the People', 'Johann Wolfgang von Goethe/Faust', 'Karel Capek/R.U.R.',
        'Molière/Tartuffe', 'Oscar Wilde/An Ideal Husband', 'Oscar Wilde/The Importance of Being Earnest'],
    'old English': [
        'Anonymous/Volsunga Saga', 'Cotton Mather/Wonders of the Invisible World',
        'Francis Godwin/The Man in the Moone', 'Margaret Cavendish/The Blazing World',
        'Mary Rowlandson/A Narrative of the Captivity and Restoration of Mrs. Mary Rowlandson'],
    'doubles of stories in a collection by the same author': [
        'James Joyce/The Dead', 'F. Scott Fitzgerald/The Curious Case of Benjamin Button', 'M.R. James/Count Magnus',
        "Nathaniel Hawthorne/Edward Randolph's Portrait", 'Lucy Maud Montgomery/Christmas Stories'],
}

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
    """Write the books; returns {'train': (books, bytes), 'held_out': ...} and the hash of all names and texts.

    Raises ValueError where a book that LEFT_OUT or HELD_OUT names is missing: then it is another collection.
    """
    paths = sorted(Path(collection).glob('*/*.md'), key=lambda path: path.relative_to(collection).as_posix())
    names = {re.sub(r'\s+', ' ', path.relative_to(collection).as_posix().removesuffix('.md')).strip(): path
             for path in paths if path.parent.name <= LAST_AUTHOR}
    left_out = {name for some in LEFT_OUT.values() for name in some}
    missing = sorted(left_out - {*names}) + sorted({*HELD_OUT} - {path.parent.name for path in names.values()})
    if missing:
        raise ValueError(f'{collection} lacks {len(missing)} books of the collection, for example {missing[0]}: '
                         'git clone github.com/mlschmitt/classic-books-markdown, then git checkout 9448827')
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
