"""tokenizer.json of an exported network, for convert.py.

With this tokenizer.json the `tokenizers` library gives nearly the ids of 2018. The rules of text_utils.py become
regular expressions that put a blank wherever a word is split, before the text is lower-cased. Texts with equal ids, for
the released vocabulary; in brackets with the tokenizer that transformers has for this network:

    400 texts, most of them made to be difficult (250: tests/goldens)    376 (156)
    11,226 stories and endings of the Story Cloze Test                  11,226 (9,337)
    44,263 texts of CoLA, MRPC, STS-B and RTE, each once                44,237 (33,793)

Not expressed: ftfy's repair of wrongly decoded text, most HTML entities, URLs, rare runs of quotes, a
final sigma. A literal "_start_" or "<unk>" in a text is read as the special token.
"""

import json
import re
from collections import defaultdict

from common.examples import SPECIAL
from text_utils import CURRENCY, PUNCT, QUOTES, SYMBOLS, UNITS, char_ranges, load_rules
from utils import read_json

ALONE, IN_RUNS = '!";?+,)(*[]}{_', '-~/|'  # signs that blanks surround: each one, or a run of equal ones
# what ftfy and text_standardize replace most often, and white space
CLEAN = (*((chr(c), chr(c - 0xfee0)) for c in range(0xff01, 0xff5f)),  # wide letters and signs
         ('[‘’‚‛]', "'"), ('[“”„‟]', '"'), ('\r\n?|[\u2028\u2029\x85]', '\n'), ('[—–―]', '-'), ('…', '...'), ('´', "'"),
         ('[\0-\x08\x0b\x0e-\x1f\x7f\ufeff]', ''), ('&amp;', '&'), ('&lt;', '<'), ('&gt;', '>'), ('&quot;', '"'),
         ('&nbsp;', ' '), (r'\A\s+|\s+\z', ''), (r'\s*\n\s*', ' \n '), (r'[^\S\n]+', ' '))
LOWER, ALPHA, BLANK = 'a-zß-öø-ÿ', 'A-Za-zÀ-ÖØ-öø-ÿ', r'\s'


def signs_of(table) -> str:
    """The single characters in a table of text_utils, for use inside the brackets of a regular expression."""
    single = {entry[-1] for entry in table if len(entry.lstrip('\\')) == 1}
    return re.escape(''.join(sorted(single - {*ALONE, *IN_RUNS})))


SYMBOL = char_ranges(SYMBOLS)
SIGNS = signs_of(PUNCT + QUOTES) + SYMBOL  # are split off at both ends of a chunk
FIRST = f'{SIGNS}§%={signs_of(CURRENCY)}'  # are split off at its beginning
DOT = rf'(?<=[0-9{LOWER}%²:|\'"`«»]|[A-Z][A-Z])(?=\.)'  # before a dot that may be split off
END = rf"(?=(?:[{SIGNS}]|'[sS]|{DOT}\.)*(?:\s|\z))"  # only what is split off follows, up to the end of the chunk


def any_of(texts, before='') -> str:
    """An expression for one of the texts, the longest that fits, each after the expression `before`."""
    return '|'.join(before + re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text)))


def exceptions():
    """The texts that spaCy splits in its own way, by their parts.

    Returns {first character: what follows it}, {last character: what precedes it}, and, for those that become several
    words, {the last words: the first ones}.
    """
    rests, starts, heads = defaultdict(set), defaultdict(set), defaultdict(set)
    for text, words in sorted(load_rules()[0].items()):  # sorted: an export is the same each time
        if len(text) > 1 and not {*text} & {*ALONE, *IN_RUNS, *' \n\t'}:
            rests[text[0]].add(text[1:])
            starts[text[-1]].add(text[:-1])
            for i in range(1, len(words)):
                heads[''.join(words[i:])].add(''.join(words[:i]))
    return rests, starts, heads


def after_prefix(rests) -> str:
    """After the first sign of a chunk, unless an exception begins with it. Two backticks are one sign."""
    rest_of = {re.escape(sign): any_of(rest) for sign, rest in rests.items() if re.match(f'[{FIRST}]', sign)}
    return '|'.join([
        rf'(?<=\s[{FIRST}])(?<!\s[{"".join(rest_of)}`])(?=\S)',
        r'(?<=\s`)(?=[^\s`])',
        r'(?<=\s``|\sUS\$|\sC\$|\sA\$)(?=\S)',
        *(rf'(?<=\s{sign})(?!(?:{rest}){END})(?=\S)' for sign, rest in rest_of.items())])


def before_suffix(starts) -> str:
    """Before each sign at the end of a chunk, unless an exception ends with it."""
    start_of = {re.escape(sign): any_of(start, BLANK) for sign, start in starts.items()}
    start_of = {sign: start for sign, start in start_of.items() if re.match(f'[{SIGNS}]', sign[-1])}
    return '|'.join([
        rf'(?<=\S)(?=[{SIGNS}]{END})(?![{"".join(start_of)}`])',
        rf'(?<=[^\s`])(?=`{{1,2}}{END})',
        *(rf'(?<=[^\s{sign}])(?={sign}{{1,2}}{END})(?<!{start})' for sign, start in start_of.items())])


def splits() -> list[str]:
    """Expressions of the empty places where blanks are put, one after the other; a blank precedes each chunk of text.

    The order is that of `text_utils.split_chunk`: prefixes, suffixes, exceptions, and the inside of what remains.
    """
    rests, starts, heads = exceptions()
    alone, units = re.escape(ALONE), '|'.join(sorted(CURRENCY + UNITS, key=len, reverse=True))
    runs = [rf'(?<={sign})(?!{sign})|(?<!{sign})(?={sign})' for sign in map(re.escape, IN_RUNS)]
    return [
        '|'.join([rf'(?<=[{alone}])|(?=[{alone}])', *runs]),
        *[after_prefix(rests)] * 3,  # each finds one of several
        r'(?<=[^.\s])(?=\.\.)|(?<=\.\.)(?=[^.\s])',
        before_suffix(starts),
        rf"(?<=\S)(?='[sS]{END})",
        rf'{DOT}(?=\.{END})(?<!{any_of(starts["."], BLANK)})',
        rf'(?<=[0-9])(?=(?:{units}){END})',
        '|'.join(rf'(?={re.escape(tail)}{END})(?<={any_of(words, BLANK)})' for tail, words in heads.items()),
        '|'.join([
            rf'(?<=[{LOWER}])(?=\.[A-Z])(?<!\sPh)', rf'(?<=[{LOWER}]\.)(?=[A-Z])(?<!\sPh\.)',  # one.Two, not Ph.D
            rf'(?<=[{ALPHA}])(?=[:<>=][{ALPHA}])', rf'(?<=[{ALPHA}][:<>=])(?=[{ALPHA}])',  # one:two
            r'(?<=[0-9])(?=\^[0-9])', r'(?<=[0-9]\^)(?=[0-9])',  # 2^3
            f'(?=[{SYMBOL}])', f'(?<=[{SYMBOL}])']),
    ]


def tokenizer_json(vocabulary: dict, merges: list, reads_classify: bool) -> str:
    """The file, for {token: id} with the special tokens, if there are any.

    reads_classify: texts become sequences as in fine-tuning, _start_ text _classify_ or _start_ text _delimiter_ text
    _classify_. Raises ValueError if a merge makes a symbol that is not in the vocabulary, which the library refuses.
    """
    for pair in merges:
        if ''.join(pair) not in vocabulary:
            raise ValueError(f'the merge {" ".join(pair)} makes a token that is not in the vocabulary')
    special = [token for token in SPECIAL if token in vocabulary]
    replaced = [*CLEAN, *((place, ' ') for place in splits())]
    replace = [dict(type='Replace', pattern=dict(Regex=pattern), content=text) for pattern, text in replaced]
    # the library fails for an empty match at the beginning of a text; the blank there prevents it
    replace.insert(len(CLEAN), dict(type='Prepend', prepend=' '))
    return json.dumps(dict(
        version='1.0', truncation=None, padding=None,
        added_tokens=[dict(id=vocabulary[token], content=token, single_word=False, lstrip=False, rstrip=False,
                           normalized=False, special=True) for token in special],
        normalizer=dict(type='Sequence', normalizers=[dict(type='NFC'), *replace, dict(type='Lowercase')]),
        pre_tokenizer=dict(type='Split', pattern=dict(Regex=' +'), behavior='Removed', invert=False),
        post_processor=template(vocabulary) if reads_classify else None,
        decoder=dict(type='BPEDecoder', suffix='</w>'),
        model=dict(type='BPE', dropout=None, unk_token=min(vocabulary, key=vocabulary.get), fuse_unk=False,
                   continuing_subword_prefix='', end_of_word_suffix='</w>', byte_fallback=False, vocab=vocabulary,
                   merges=[' '.join(pair) for pair in merges])))  # pairs are read since tokenizers 0.20 only


def read_tokenizer_json(path) -> tuple[dict, list]:
    """{token: id} with the added tokens, and the merges, of a file that the library wrote."""
    content = read_json(path)
    try:
        model, added = content['model'], content.get('added_tokens') or []
        vocabulary = model['vocab'] | {token['content']: token['id'] for token in added}
        merges = [tuple(pair.split(' ') if isinstance(pair, str) else pair) for pair in model['merges']]
        is_ours = (model['type'], model['end_of_word_suffix']) == ('BPE', '</w>')
        if not is_ours or any(len(pair) != 2 or tuple(' '.join(pair).split()) != pair for pair in merges):
            raise ValueError
    except (LookupError, TypeError, AttributeError, ValueError):
        raise ValueError(f'{path} does not hold vocabulary and merges as this network has them: BPE with the suffix '
                         '</w>') from None
    return vocabulary, merges


def template(vocabulary) -> dict:
    """The rule of the library that puts the special tokens around one text or two."""
    start, delimiter, classify = ({'SpecialToken': dict(id=token, type_id=0)} for token in SPECIAL)
    first, second = ({'Sequence': dict(id=name, type_id=0)} for name in 'AB')
    tokens = {token: dict(id=token, ids=[vocabulary[token]], tokens=[token]) for token in SPECIAL}
    return dict(type='TemplateProcessing', single=[start, first, classify],
                pair=[start, first, delimiter, second, classify], special_tokens=tokens)
