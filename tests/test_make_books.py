"""Text to pre-train on, from made-up books with each oddity of the collection."""

import pytest

from data import make_books

BOOK = '''# Title: A Book

## Author: Ann Author

## Year: 1900

-------

##  CHAPTER I.

It was a _dark_ and **stormy** night, and the
rain&amp;wind fell[1] \\- in torrents\\. ![a storm](storm.png)

* * *

"Who is there?" he _said_.

> A quoted letter,
> in two lines.

See [the ship](http://example.org/ship), her any_thing, and <i>the sea</i>.[Illustration: a ship]

| a | table |
|---|---|

CONTENTS

[1] A note on the rain.[Matt. 12:45]

*THE END*

_Finis_

End of this Project Gutenberg book
'''
PROSE = ['It was a dark and stormy night, and the rain&wind fell - in torrents.', '"Who is there?" he said.',
         'A quoted letter, in two lines.', 'See the ship, her anything, and the sea.', 'A note on the rain.']


def test_prose_is_what_stays():
    assert make_books.paragraphs(BOOK) == PROSE


@pytest.fixture
def collection(tmp_path, monkeypatch):
    """A collection of three books to keep, one of them held out, one to leave out, and one of a later author."""
    for name in ('Ann Author/A Book', 'Ann Author/Another: Book ', 'Bob Bard/Poems', 'Carl Clerk/Third', 'Zoe/Last'):
        path = tmp_path / 'collection' / f'{name}.md'
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(BOOK, encoding='utf-8')
    (tmp_path / 'left_out.txt').write_text('# verse\nBob Bard/Poems\n')
    monkeypatch.setattr(make_books, 'LEFT_OUT', tmp_path / 'left_out.txt')
    monkeypatch.setattr(make_books, 'HELD_OUT', ('Carl Clerk',))
    monkeypatch.setattr(make_books, 'LAST_AUTHOR', 'Carl Clerk')
    return tmp_path / 'collection'


def test_one_file_a_book_and_the_same_hash_each_time(collection, tmp_path):
    counts, digest = make_books.make_books(collection, tmp_path / 'books')
    text = '\n'.join(PROSE) + '\n'
    assert counts == {'train': (2, 2 * len(text)), 'held_out': (1, len(text))}
    books = tmp_path / 'books'
    found = {str(path.relative_to(books)): path.read_text() for path in books.rglob('*.txt')}
    assert found == dict.fromkeys(['train/Ann Author - A Book.txt', 'train/Ann Author - Another Book.txt',
                                   'held_out/Carl Clerk - Third.txt'], text)
    assert make_books.make_books(collection, tmp_path / 'again')[1] == digest
    (collection / 'Ann Author' / 'A Book.md').write_text(BOOK.replace('dark', 'dim'))
    assert make_books.make_books(collection, tmp_path / 'again')[1] != digest


def test_another_collection_is_refused(collection, tmp_path):
    (collection / 'Bob Bard' / 'Poems.md').unlink()
    with pytest.raises(ValueError, match='lacks 1 books of the collection, for example Bob Bard/Poems: git clone'):
        make_books.make_books(collection, tmp_path / 'books')
    assert not (tmp_path / 'books').exists()
