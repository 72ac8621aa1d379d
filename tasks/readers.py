"""Rows of the files that data comes in, one at a time: tables with and without quotes, json lines, parquet."""

import csv
import io
import itertools
import json
import re
from array import array
from collections import Counter
from decimal import Decimal

from utils import MAX_TEXT, check_file, check_start, errors_named, read_text

LONGEST_FIELD = 2 ** 24  # characters of a field of a csv file, against unclosed quotes
BATCH = 4096  # rows of a parquet file that are in memory at a time


def read_lines(path):
    """The lines of a UTF-8 file, each with its line end. Only a line feed ends one, as texts may hold other breaks."""
    check_file(path, MAX_TEXT)
    with errors_named(path), open(path, 'rb') as f:
        check_start(path, f.peek(4))
        for number, line in enumerate(f, start=1):
            try:
                yield line.decode('utf-8-sig' if number == 1 else 'utf-8')
            except UnicodeDecodeError as e:
                byte = e.object[e.start]
                raise ValueError(f'{path}, line {number}: byte 0x{byte:02x} is not UTF-8: save it as UTF-8') from None


def table_rows(path, widths=()):
    """Line number and fields of each row of a table. The header, if it has one, is the first row.

    A blank row (delimiters alone, or blank in a table of one column) has no fields; before the first and after the last
    other row it is left out. Other blank lines are no rows. The delimiter of a .tsv file is a tab. Other files have the
    one of comma, semicolon and tab that is most frequent in the first row, outside quotes, or a tab if that gives one
    of the `widths`, the numbers of columns of a table without a header. Between tabs, quotes are part of the text;
    otherwise the file is strict CSV. Raises what `read_lines` raises, and ValueError with the line of wrong quotes.
    """
    lines, start = read_lines(path), 1
    for first in lines:
        if first.strip():
            break
        start += 1
    else:
        return
    if excel := re.fullmatch('sep=([,;\t])\r?\n', first):  # Excel's first line may name the delimiter
        delimiter, start = excel[1], start + 1
    else:
        tabs = str(path).lower().endswith('.tsv') or first.count('\t') + 1 in widths
        delimiter = '\t' if tabs else max(',;\t', key=re.sub('"[^"]*("|$)', '', first).count)
        lines = itertools.chain([first], lines)
    width, blank = 0, array('q')  # columns of the first row; numbers of the last blank rows
    for number, line, fields in delimited(path, lines, delimiter, start):
        if line.replace(delimiter, '').strip():
            yield from ((i, []) for i in blank)
            yield number, fields
            width, blank = width or len(fields), array('q')
        elif width == 1 or width and delimiter in line:
            blank.append(number)


def delimited(path, lines, delimiter, start):
    """Number, last line and fields of each row, blank ones too; start: the number of the first of the lines."""
    if delimiter == '\t':
        for number, line in enumerate(lines, start):
            yield number, line, line.removesuffix('\n').removesuffix('\r').split('\t')
        return
    # csv wants a carriage return inside a line to end it, as it ends the lines of old Macs
    lines = (part for line in lines for part in (io.StringIO(line, newline='') if '\r' in line else [line]))
    csv.field_size_limit(LONGEST_FIELD)
    last, number = [''], start  # the line that csv has read last

    def remembered():
        for last[0] in lines:
            yield last[0]

    reader = csv.reader(remembered(), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            yield number, last[0], row
            number = start + reader.line_num
    except csv.Error as e:
        hint = ': inside quotes a quote is written twice, and after them the field ends'
        raise ValueError(f'{path}, line {number}: {e}{hint if "expected after" in str(e) else ""}') from None


def find_column(header, names) -> list:
    """Indices in a header of the columns with this name; of several names, with the first that the header has.

    The exact name comes before one with blanks around it, and this before one in other letters, small or capital.
    """
    for name in [names] if isinstance(names, str) else names:
        for form in (str, str.strip, lambda text: text.strip().lower()):
            if found := [i for i, other in enumerate(header) if form(other) == form(name)]:
                return found
    return []


def find_columns(path, place, header, columns, label=()) -> list:
    """Indices in a header of the columns, each given by its name or by several, and of the label; None: no label."""
    found = [find_column(header, names) for names in (*columns, label)]
    missing = [names if isinstance(names, str) else ' or '.join(names)
               for names, indices in zip(columns, found, strict=False) if not indices]
    if missing:
        names = ' '.join(', '.join(header).split())[:200]
        raise ValueError(f'{path}, {place}: no column {", ".join(missing)}: it has {names or "none"}')
    for indices in found:
        if len(indices) > 1:
            which = ', '.join(f'column {i + 1} ({" ".join(header[i].split())})' for i in indices)
            raise ValueError(f'{path}, {place}: several columns of the same name, {which}: rename all but one')
    return [indices[0] if indices else None for indices in found]


def at(indices, values) -> list:
    """The values at these indices; None where an index is None."""
    return [None if i is None else values[i] for i in indices]


def once(pairs) -> dict:
    """A json object of its pairs. ValueError if a key comes twice: json would take the last."""
    if len(value := dict(pairs)) < len(pairs):
        raise ValueError(f'the key {Counter(key for key, _ in pairs).most_common(1)[0][0][:40]!r} comes twice')
    return value


def parse_json(path, place, text):
    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as e:
        raise ValueError(f'{path}, {place}: not json: {getattr(e, "msg", e)}') from None


def json_values(path):
    """Place and value of each line of a file, or of each element of a file that is one list."""
    for number, line in enumerate(read_lines(path), start=1):
        if number == 1 and line.lstrip().startswith('['):  # as pandas writes records
            values = parse_json(path, 'line 1', read_text(path))
            yield from ((f'row {i}', value) for i, value in enumerate(values, start=1))
            return
        if not line.isspace():
            yield f'line {number}', parse_json(path, f'line {number}', line)


def json_rows(path, columns, label):
    """`read_rows` for json. Its columns are the keys of all objects; those that an object lacks are null."""
    header, first = {}, None
    for place, row in json_values(path):
        if not isinstance(row, dict):
            raise ValueError(f'{path}, {place}: not a json object, {{"column": value, ...}}')
        first = first or place
        header |= dict.fromkeys(row)
    if first:
        names = at(find_columns(path, first, [*header], columns, label), [*header])
        yield from ((place, names, [row.get(name) for name in names]) for place, row in json_values(path))


def parquet_rows(path, columns, label):
    """`read_rows` for parquet."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as e:  # missing, or not for this version of numpy
        raise ValueError(f'{path}: parquet needs pyarrow ({e}): pip install pyarrow, or save it as .jsonl') from None
    check_file(path, MAX_TEXT)
    number = 0
    open(path, 'rb').close()  # an error that is not called damage
    try:
        with parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            names = at(find_columns(path, 'schema', header, columns, label), header)
            wanted = [name for name in names if name is not None]
            for batch in file.iter_batches(BATCH, columns=wanted):
                fields = {name: batch.column(name).to_pylist() for name in wanted}
                for values in zip(*(fields.get(name, [None] * len(batch)) for name in names), strict=True):
                    number += 1
                    yield f'row {number}', names, list(values)
    except (ArrowException, OSError, UnicodeDecodeError) as e:
        raise ValueError(f'{path}, row {number + 1}: damaged, or no parquet file: {str(e).splitlines()[0]}') from None


def column_rows(path, columns, label, bare, broken):
    """`read_rows` for tables."""
    rows = table_rows(path, bare)
    line, first = next(rows, (1, []))  # an empty file has no columns
    if len(first) in bare and not all(find_column(first, names) for names in columns):
        layouts, names = bare, [f'column {i + 1}' for i in bare[len(first)]]
        rows = itertools.chain([(line, first)], rows)  # the first row is an example
    else:
        indices = find_columns(path, 'line 1', first, columns, label)
        layouts, names = {len(first): indices}, at(indices, first)
    for line, row in rows:
        if len(row) in layouts:
            yield f'line {line}', names, at(layouts[len(row)], row)
        elif not row or broken is not None and names[-1] is not None:
            if row:
                broken.append(line)
            yield f'line {line}', names, [''] * len(names)
        else:
            raise ValueError(f'{path}, line {line}: {len(row)} columns, not {" or ".join(map(str, layouts))}: is a '
                             'delimiter or a line break inside a field?')


def plain(value, lists=False):
    """A field as text without blanks around it, as a number, or with `lists` as a list of texts. null and NaN give ''.

    Raises TypeError for anything else, and UnicodeError for text that is not Unicode.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # json can hold halves of characters
        return value.strip()
    if value is None or value != value:
        return ''
    if isinstance(value, bool):
        return str(value)  # as pandas writes it to csv
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, Decimal):  # of parquet
        return float(value)
    if lists and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return [plain(text) for text in value]
    raise TypeError


def read_rows(path, columns, label=(), bare=None, broken=None, lists=False):
    """The place ('line 3', 'row 3') and the wanted fields of each row of a file, one row at a time.

    columns: of each its name, or several names of which the first that the file has counts; see `find_column`.
    label: names of one more column, whose field comes last; it is None where the file has no such column.
    bare: {number of columns: indices of the columns and of the label}, the layouts of a table that may come without a
    header: the first row is a header if it has the names of all columns. broken: a list to which the lines of rows with
    another number of columns are added, if the file has labels, and their fields are ''; without it, and in a file
    without labels, they raise. lists: fields may be lists of texts.

    The format follows from the name: .parquet, .jsonl or .json (one object a line, or a list of them), .tsv (no
    quotes), and .csv; other files are json if they begin with {, else as `table_rows` says. Fields are texts, stripped,
    or numbers; nulls are ''. Raises what `read_lines` raises, and ValueError with file and place.
    """
    name = str(path).lower()
    if name.endswith('.parquet'):
        rows = parquet_rows(path, columns, label)
    elif name.endswith(('.jsonl', '.json')) or not name.endswith(('.csv', '.tsv')) and begins_json(path):
        rows = json_rows(path, columns, label)
    else:
        rows = column_rows(path, columns, label, bare or {}, broken)
    for place, names, values in rows:
        fields = []
        for name, value in zip(names, values, strict=True):
            try:
                fields.append(None if name is None else plain(value, lists))
            except (TypeError, UnicodeError):
                raise ValueError(f'{path}, {place}: {name} is {str(value)[:40]!r}, not a text or a number') from None
        yield place, fields


def doubled_quotes(path, texts) -> list[str]:
    """A note if all texts that have quotes have them as a .csv file: "Ana said ""no"" to Bo"."""
    quoted = [text for text in texts if '"' in text]
    if any('""' in text[1:-1] for text in quoted) and all(
            text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', '') for text in quoted):
        return [f'{path}: quotes in texts are doubled, as pandas writes a .tsv, but are part of the text here: '
                f'{quoted[0][:40]}: save it with commas, as .csv']
    return []


def begins_json(path) -> bool:
    """True if the first character that is not blank is a brace."""
    return next((line for line in read_lines(path) if not line.isspace()), '').lstrip().startswith('{')
