"""Text to BPE token ids, exactly as in 2018 (text_utils.py of openai/finetune-transformer-lm).

The released weights were trained on text that ftfy 4.4.3 cleaned and spaCy 2.0.11 split; another splitter would give
other ids without an error. Today's spaCy cannot use the old rules, so this file contains them, and takes only the list
of exceptions from the installed spaCy. The rules are adapted from spaCy 2.0.11 (MIT licence, (C) 2016 ExplosionAI UG,
2016 spaCy GmbH, 2015 Matthew Honnibal).
"""

import functools
import hashlib
import json
import operator
import os
import pkgutil
import re
import sys
import types
import unicodedata
from heapq import heapify, heappop, heappush
from itertools import groupby

from tqdm import tqdm

from utils import MAX_JSON, how_to_get, read_json, read_text

# Affixes of spacy/lang/punctuation.py and char_classes.py; every entry is a regular expression.
PUNCT = r'… …… , : ; ! \? ¿ ؟ ¡ \( \) \[ \] { } < > _ # \* & 。 ？ ！ ， 、 ； ： ～ · । ، ؛ ٪'.split()
ELLIPSES = [r'\.\.+', '…']
QUOTES = '\' \'\' " ” “ `` ` ‘ ´ ‘‘ ’’ ‚ , „ » « 「 」 『 』 （ ） 〔 〕 【 】 《 》 〈 〉'.split()
CURRENCY = r'\$ £ € ¥ ฿ US\$ C\$ A\$ ₽ ﷼'.split()
UNITS = '''
    km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa
    mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа
    Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб
'''.split()

# Hexadecimal code points of the character classes that spaCy took from the regex module, as of Unicode 9, so that newer
# letters and emoji are split as in 2018. CASED: \p{Latin} and Russian letters (`load_rules` separates capital and small
# ones); UNCASED: letters of \p{Bengali}, \p{Hebrew} and \p{Arabic}; SYMBOLS: \p{So}; OTHER_WORD: what \w of the regex
# module matches in addition to letters, marks, digits and connectors.
CASED = '''
    41-5a 61-7a aa ba c0-d6 d8-f6 f8-2b8 2e0-2e4 401 410-44f 451 1d00-1d25 1d2c-1d5c 1d62-1d65 1d6b-1d77
    1d79-1dbe 1e00-1eff 2071 207f 2090-209c 212a-212b 2132 214e 2160-2188 2c60-2c7f a722-a787 a78b-a7ae
    a7b0-a7b7 a7f7-a7ff ab30-ab5a ab5c-ab64 fb00-fb06 ff21-ff3a ff41-ff5a
'''
UNCASED = '''
    5d0-5ea 5f0-5f2 620-63f 641-64a 66e-66f 671-6d3 6d5 6e5-6e6 6ee-6ef 6fa-6fc 6ff 750-77f 8a0-8b4 8b6-8bd 980
    985-98c 98f-990 993-9a8 9aa-9b0 9b2 9b6-9b9 9bd 9ce 9dc-9dd 9df-9e1 9f0-9f1 fb1d fb1f-fb28 fb2a-fb36 fb38-fb3c
    fb3e fb40-fb41 fb43-fb44 fb46-fbb1 fbd3-fd3d fd50-fd8f fd92-fdc7 fdf0-fdfb fe70-fe74 fe76-fefc 1ee00-1ee03
    1ee05-1ee1f 1ee21-1ee22 1ee24 1ee27 1ee29-1ee32 1ee34-1ee37 1ee39 1ee3b 1ee42 1ee47 1ee49 1ee4b 1ee4d-1ee4f
    1ee51-1ee52 1ee54 1ee57 1ee59 1ee5b 1ee5d 1ee5f 1ee61-1ee62 1ee64 1ee67-1ee6a 1ee6c-1ee72 1ee74-1ee77
    1ee79-1ee7c 1ee7e 1ee80-1ee89 1ee8b-1ee9b 1eea1-1eea3 1eea5-1eea9 1eeab-1eebb
'''
SYMBOLS = '''
    a6 a9 ae b0 482 58d-58e 60e-60f 6de 6e9 6fd-6fe 7f6 9fa b70 bf3-bf8 bfa c7f d4f d79 f01-f03 f13 f15-f17 f1a-f1f
    f34 f36 f38 fbe-fc5 fc7-fcc fce-fcf fd5-fd8 109e-109f 1390-1399 1940 19de-19ff 1b61-1b6a 1b74-1b7c 2100-2101
    2103-2106 2108-2109 2114 2116-2117 211e-2123 2125 2127 2129 212e 213a-213b 214a 214c-214d 214f 218a-218b
    2195-2199 219c-219f 21a1-21a2 21a4-21a5 21a7-21ad 21af-21cd 21d0-21d1 21d3 21d5-21f3 2300-2307 230c-231f
    2322-2328 232b-237b 237d-239a 23b4-23db 23e2-23fe 2400-2426 2440-244a 249c-24e9 2500-25b6 25b8-25c0 25c2-25f7
    2600-266e 2670-2767 2794-27bf 2800-28ff 2b00-2b2f 2b45-2b46 2b4d-2b73 2b76-2b95 2b98-2bb9 2bbd-2bc8 2bca-2bd1
    2bec-2bef 2ce5-2cea 2e80-2e99 2e9b-2ef3 2f00-2fd5 2ff0-2ffb 3004 3012-3013 3020 3036-3037 303e-303f 3190-3191
    3196-319f 31c0-31e3 3200-321e 322a-3247 3250 3260-327f 328a-32b0 32c0-32fe 3300-33ff 4dc0-4dff a490-a4c6
    a828-a82b a836-a837 a839 aa77-aa79 fdfd ffe4 ffe8 ffed-ffee fffc-fffd 10137-1013f 10179-10189 1018c-1018e
    10190-1019b 101a0 101d0-101fc 10877-10878 10ac8 1173f 16b3c-16b3f 16b45 1bc9c 1d000-1d0f5 1d100-1d126
    1d129-1d164 1d16a-1d16c 1d183-1d184 1d18c-1d1a9 1d1ae-1d1e8 1d200-1d241 1d245 1d300-1d356 1d800-1d9ff
    1da37-1da3a 1da6d-1da74 1da76-1da83 1da85-1da86 1f000-1f02b 1f030-1f093 1f0a0-1f0ae 1f0b1-1f0bf 1f0c1-1f0cf
    1f0d1-1f0f5 1f110-1f12e 1f130-1f16b 1f170-1f1ac 1f1e6-1f202 1f210-1f23b 1f240-1f248 1f250-1f251 1f300-1f3fa
    1f400-1f6d2 1f6e0-1f6ec 1f6f0-1f6f6 1f700-1f773 1f780-1f7d4 1f800-1f80b 1f810-1f847 1f850-1f859 1f860-1f887
    1f890-1f8ad 1f910-1f91e 1f920-1f927 1f930 1f933-1f93e 1f940-1f94b 1f950-1f95e 1f980-1f991 1f9c0
'''
OTHER_WORD = '200c-200d 24b6-24e9 1f130-1f149 1f150-1f169 1f170-1f189'

# URL_PATTERN of spacy/lang/tokenizer_exceptions.py, rearranged. Any text may follow a host, so its shortest match is
# enough: an IP address, or labels and a TLD, at the beginning, after a protocol or after any @. No affix is split off a
# host.
HOST = (
    r'(?:(?!(?:10|127)(?:\.\d{1,3}){3})(?!(?:169\.254|192\.168)(?:\.\d{1,3}){2})'
    r'(?!172\.(?:1[6-9]|2\d|3[0-1])(?:\.\d{1,3}){2})(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])'
    r'(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.[1-9]|(?:[a-z0-9-]*[a-z0-9]\.)+?[a-z]{2})'
)
URL_HOST = re.compile(f'(?:(?:https?|ftp|mailto)://)?{HOST}')
USER_HOST = re.compile(f'@{HOST}')

# English exceptions that spaCy added and removed after 2.0.11.
GAINED = re.compile("(?:this|these|those).*|c['’]mon|prof[.]|v[.]s[.]|=[][]|[][]=|°[cfk][.]", re.IGNORECASE).fullmatch
LOST = {'")': ['")'], 'May.': ['May.'], 'cause': ['cause']} | {
    that + have: [that, have] for that in ('that', 'That') for have in ('re', 've', "'re", "'ve", '’re', '’ve')
}
EXCEPTIONS_SHA256 = '632ebc7b339ce67eff45734820173ea79185cfaaa1c87265be5ce977d39d4741'  # of the exceptions of 2.0.11
LONGEST_EXCEPTION = 12

# Text in which ftfy changes only line ends and quotes: printable ASCII without entities, typographic quotes, dashes and
# dots, and small Latin letters that stand alone among ASCII. ftfy also repairs UTF-8 that was decoded in another
# encoding; in none that it tries do these characters, in these places, look like that.
PLAIN = re.compile(r"""(?:[\n\r -%'-~‘’“”—…]++|&(?!\#?\w{0,8};)
                       |(?<![^\n\r -~])[ß-öø-ÿ](?=[\n\r!-~]|\ [\n\r -~]|\ ?\Z))*+""", re.VERBOSE).fullmatch
SYMBOL_RUNS = re.compile(r'([-~!";?+,)(/*[\]}{|_])\1*')
ASCII_WORD = re.compile('[A-Za-z]+').fullmatch
MAX_CACHED, MAX_CACHED_LEN = 2 ** 19, 40  # chunks in the cache, and characters of each, at most: about 200 MB


def char_ranges(table):
    """'61-63 78' -> 'a-cx', for use inside the brackets of a regular expression."""
    return ''.join('-'.join(chr(int(end, 16)) for end in span.split('-')) for span in table.split())


@functools.cache
def load_ftfy():
    """ftfy.fix_text of 2018.

    ftfy 4 reads one file with pkg_resources, which setuptools 82 does not have, and setuptools 80 imports slowly and
    with a warning. During the import of ftfy, a module with the one function that it needs replaces pkg_resources.
    """
    replacement = types.ModuleType('pkg_resources')
    replacement.resource_string = pkgutil.get_data
    used = sys.modules.setdefault('pkg_resources', replacement)
    try:
        import ftfy
    finally:
        if used is replacement:
            del sys.modules['pkg_resources']
    if not ftfy.__version__.startswith('4.'):
        raise ValueError(f'ftfy {ftfy.__version__} cleans text differently than in 2018: pip install ftfy==4.4.3')
    return ftfy.fix_text


@functools.cache
def load_rules():
    """English rules of spaCy 2.0.11: {exception: tokens}, match prefix, search suffix, find infix, match OTHER_WORD."""
    import spacy
    from spacy.lang.en.tokenizer_exceptions import TOKENIZER_EXCEPTIONS
    from spacy.symbols import ORTH

    exceptions = {text: [token[ORTH] for token in tokens] for text, tokens in TOKENIZER_EXCEPTIONS.items()
                  if not GAINED(text)} | LOST
    if hashlib.sha256(json.dumps(sorted(exceptions.items())).encode()).hexdigest() != EXCEPTIONS_SHA256:
        raise ValueError(f'spaCy {spacy.__version__} has other English exceptions than 3.8: pip install "spacy==3.8.*"')

    cased = re.findall(f'[{char_ranges(CASED)}]', ''.join(map(chr, range(0x10000))))
    lower = ''.join(c for c in cased if unicodedata.category(c) == 'Ll') + char_ranges(UNCASED)
    upper = ''.join(c for c in cased if unicodedata.category(c) == 'Lu') + char_ranges(UNCASED)
    alpha, symbol, after_digit = lower + upper, f'[{char_ranges(SYMBOLS)}]', '|'.join(CURRENCY + UNITS)
    prefixes = ['§', '%', '=', r'\+'] + PUNCT + ELLIPSES + QUOTES + CURRENCY + [symbol]
    suffixes = PUNCT + ELLIPSES + QUOTES + [symbol, "'s", "'S", '’s', '’S'] + [
        r'(?<=[0-9])\+', r'(?<=°[FfCcKk])\.', f'(?<=[0-9])(?:{after_digit})',
        rf'(?<=[0-9{lower}%²\-)\]+(?:|{"".join(QUOTES)}])\.',  # in [] spaCy's "(?:|" are characters, not a group
        f'(?<=[{upper}][{upper}])[.]',
    ]
    infixes = ELLIPSES + [
        symbol, r'(?<=[0-9])[+\-*^](?=[0-9-])', f'(?<=[{lower}])[.](?=[{upper}])', f'(?<=[{alpha}]),(?=[{alpha}])',
        f'(?<=[{alpha}])[?";:=,.]*(?:-|–|—|--|---|——|~)(?=[{alpha}])', f'(?<=[{alpha}"])[:<>=/](?=[{alpha}])',
    ]
    return (exceptions, re.compile('|'.join(prefixes)).match, re.compile(f'(?:{"|".join(suffixes)})$').search,
            re.compile('|'.join(infixes)).finditer, re.compile(f'[{char_ranges(OTHER_WORD)}]').match)


def split_chunk(chunk):
    """Tokens of spaCy 2.0.11's English tokenizer for `chunk`, a string without white space.

    Does what Tokenizer._split_affixes does, in linear time: it searches a suffix in the last characters only, and the
    host of a URL once for each position where it may begin.
    """
    exceptions, prefix_match, suffix_search, infix_finditer, other_word_match = load_rules()

    def is_exception(start, end):
        return end - start <= LONGEST_EXCEPTION and chunk[start:end] in exceptions

    def is_word(char):  # \w of the regex module
        category = unicodedata.category(char)
        return category[0] in 'LM' or category in ('Nd', 'Nl', 'Pc') or other_word_match(char)

    heads, middle, tails = [], [], []
    start, end = 0, len(chunk)
    user_host, host_start = USER_HOST.search(chunk), None
    while start < end:
        if is_exception(start, end):
            middle = exceptions[chunk[start:end]]
            break
        if host_start != start:
            host_start, host = start, URL_HOST.match(chunk, start) or user_host
        is_url = host and is_word(chunk[start]) and (chunk[end - 1] == '/' or is_word(chunk[end - 1]))
        if is_url or ASCII_WORD(chunk, start, end):  # the rules never split a plain word: this saves time
            middle = [chunk[start:end]]
            break

        prefix = prefix_match(chunk, start, end)
        after_prefix = prefix.end() if prefix else start
        window = chunk[max(start, end - 6):end]  # suffixes other than dots have up to 4 characters and look back at 2
        suffix = suffix_search(window)
        before_suffix = end - len(window) + suffix.start() if suffix else end
        if window.endswith('..'):
            before_suffix = start + len(chunk[start:end].rstrip('.'))

        if prefix and is_exception(after_prefix, end):
            before_suffix = end
        elif suffix and is_exception(start, before_suffix):
            after_prefix = start
        elif after_prefix > before_suffix:  # prefix and suffix overlap
            before_suffix = end
        if (start, end) == (after_prefix, before_suffix):
            middle = split_infixes(chunk[start:end], infix_finditer)
            break
        heads.append(chunk[start:after_prefix])
        tails.append(chunk[before_suffix:end])
        start, end = after_prefix, before_suffix
    return [token for token in heads + middle + tails[::-1] if token]


def split_infixes(text, infix_finditer):
    """'well-known' -> ['well', '-', 'known']. Some tokens may be empty."""
    tokens, done = [], 0
    for infix in infix_finditer(text):
        tokens += text[done:infix.start()], infix.group()
        done = infix.end()
    return tokens + [text[done:]]


def get_pairs(word):
    """Set of the pairs of adjacent symbols in `word`, a sequence of symbols. Kept for code that calls the original."""
    return set(zip(word, word[1:], strict=False))


def text_standardize(text):
    """Fix dashes and quotes, put spaces around runs of punctuation, collapse white space and blank lines.

    A backslash is unchanged: the original's pattern is not a raw string, and its backslash only escapes a plus sign.
    """
    for old, new in (('—', '-'), ('–', '-'), ('―', '-'), ('…', '...'), ('´', "'")):
        text = text.replace(old, new)
    text = SYMBOL_RUNS.sub(r' \g<0> ', text)
    return ' \n '.join(' '.join(line.split()) for line in text.split('\n') if line and not line.isspace())


def words_of_chunk(chunk) -> list[str]:
    """The words of a cleaned text without white space. The merges are applied to each of them."""
    return [token.lower() for part in text_standardize(chunk).split() for token in split_chunk(part)]


def clean(text):
    """The result of ftfy.fix_text. That takes a millisecond for a line, and most lines do not need it."""
    if not PLAIN(text):
        return load_ftfy()(text)
    if '\r' in text:
        text = text.replace('\r\n', '\n').replace('\r', '\n')
    if not text.isascii():
        text = text.replace('‘', "'").replace('’', "'").replace('“', '"').replace('”', '"')
    return text


def has_tokens(text) -> bool:
    """True if `encode` gives ids for a text. Cleaning removes control characters, and makes `&nbsp;` a space."""
    return bool(clean(text).split())


def load_vocabulary(path):
    """{token: id} from a json file. Raises OSError, or ValueError if the ids are not 0 to n-1."""
    encoder = read_json(path, hint=f": {how_to_get(os.path.dirname(path) or '.')}")
    ids = [i for i in encoder.values() if type(i) is int]
    if not encoder or len(ids) < len(encoder) or sorted(ids) != list(range(len(encoder))):
        raise ValueError(f'{path}: not one json object {{token: id}} with the ids 0, 1, 2, ...: download it again')
    return encoder


def load_merges(path):
    """[(symbol, symbol)] in the order in which they were learned, from a file of subword-nmt. OSError or ValueError."""
    hint = f": {how_to_get(os.path.dirname(path) or '.')}"
    header, *lines = re.split('\r\n?|\n', read_text(path, MAX_JSON, hint))
    if not header.startswith('#version'):
        raise ValueError(f'{path}, line 1: no header "#version: ..." as in a file of merges: download it again')
    merges = [tuple(line.split()) for line in lines[:-1]]  # like the original, ignores text after the last newline
    if wrong := [merge for merge in merges if len(merge) != 2]:
        raise ValueError(f'{path}: a merge has 2 symbols, not {len(wrong[0])}: download it again')
    return merges


class TextEncoder:
    """Encodes text with a vocabulary (json) and BPE merges (subword-nmt) in the formats of OpenAI's release.

    `encoder` {token: id} and `decoder` {id: token} are plain dicts; special tokens may be added to `encoder`.
    """

    def __init__(self, encoder_path, bpe_path):
        self.encoder = load_vocabulary(encoder_path)
        self.decoder = {i: token for token, i in self.encoder.items()}
        self.bpe_ranks = {merge: rank for rank, merge in enumerate(load_merges(bpe_path))}
        self.n_vocab = len(self.encoder)
        self.chunk_ids = {}  # chunk (text without white space) -> its ids

    def bpe(self, token):
        """'sat' -> 's at</w>': apply the merges to adjacent symbols in the order in which they were learned."""
        if token == '\n ':  # spaCy's token for a new line
            return '\n</w>'
        n = len(token)
        symbols = [*token[:-1], token[-1] + '</w>', None]  # None marks the end and is not in any merge
        before, after = [*range(-1, n)], [*range(1, n + 1), n]  # indices of each symbol's neighbours

        rank = self.bpe_ranks.get
        queue = [(r, i) for i in range(n) if (r := rank((symbols[i], symbols[i + 1]))) is not None]
        heapify(queue)
        while queue:
            best, changed = queue[0][0], []
            while queue and queue[0][0] == best:  # merge all occurrences, left to right, before any new pair
                i = heappop(queue)[1]
                j = after[i]
                if rank((symbols[i], symbols[j])) == best:  # otherwise one of the two symbols is already merged
                    symbols[i], symbols[j] = symbols[i] + symbols[j], None
                    after[i], before[after[j]] = after[j], i
                    changed += [before[i], i]
            for i in changed:
                if (r := rank((symbols[i], symbols[after[i]]))) is not None:
                    heappush(queue, (r, i))
        return ' '.join(filter(None, symbols))

    def encode_chunk(self, chunk):
        """Ids of a cleaned text without white space. The ids of its parts, a word and its comma, are cached too."""
        parts = text_standardize(chunk).split()
        if parts == [chunk]:
            ids = [self.encoder.get(symbol, 0) for token in split_chunk(chunk)
                   for symbol in self.bpe(token.lower()).split(' ')]
        else:
            ids = [i for part in parts for i in self.chunk_ids.get(part) or self.encode_chunk(part)]
        if len(self.chunk_ids) < MAX_CACHED and len(chunk) <= MAX_CACHED_LEN:
            self.chunk_ids[chunk] = ids
        return ids

    def encode(self, texts: list[str], verbose: bool = True) -> list[list[int]]:
        """Ids of each text, without special tokens; 0 is an unknown symbol. ValueError for a text that is not a str.

        In a cleaned text the ids of a chunk between white space do not depend on the other chunks, so they are cached.
        """
        if isinstance(texts, str):
            raise ValueError('encode takes a list of texts, not a single text: encode([text])')
        load_ftfy()  # a version other than that of 2018 is an error, even if no text needs it
        chunk_ids, newline = self.chunk_ids, self.encoder.get('\n</w>', 0)
        encoded = []
        for text in tqdm(texts, ncols=80, leave=False, disable=None if verbose else True):
            if not isinstance(text, str):
                raise ValueError(f'text {len(encoded)} is {type(text).__name__}, not str')
            ids = []
            for line in clean(text).split('\n'):
                chunks = line.split()
                if chunks and ids:
                    ids.append(newline)
                for chunk in chunks:
                    ids += chunk_ids[chunk] if chunk in chunk_ids else self.encode_chunk(chunk)
            encoded.append(ids)
        return encoded

    def decode(self, ids) -> str:
        """Readable text of token ids. An unknown symbol becomes U+FFFD, a special token its name.

        The text has a space wherever `encode` splits it ("don't" gives "do n't", "Mr." gives "mr ."), so that encoding
        and decoding it again does not change it. Raises ValueError for ids that are not in `encoder`.
        """
        if len(self.decoder) != len(self.encoder):  # special tokens were added
            self.decoder.update((i, token) for token, i in self.encoder.items())
        ids = [operator.index(i) for i in ids]  # also accepts the integers of torch and numpy
        if unknown := [i for i in ids if i not in self.decoder]:
            raise ValueError(f'id {unknown[0]} is not one of the {len(self.encoder)} tokens (a position?)')
        parts = []
        for is_text, group in groupby(ids, key=lambda i: i < self.n_vocab and self.decoder[i] != '\n</w>'):
            run = list(group)
            parts += [self.settled_text(run)] if is_text else [self.decoder[i].removesuffix('</w>') for i in run]
        return re.sub(' ?\n ?', '\n', ' '.join(parts))

    def settled_text(self, ids):
        """Text of ids other than special tokens and newlines, encoded and decoded until it no longer changes."""
        text = None
        for _ in range(10):  # usually three rounds are enough
            previous, text = text, ''.join('\ufffd</w>' if i == 0 else self.decoder[i] for i in ids)
            text = text.replace('</w>', ' ').strip()
            if text == previous:
                break
            ids = self.encode([text], verbose=False)[0]
        return text
