"""What an exported network has beside its weights: the tokenizer.json and a model card, for convert.py.

With this tokenizer.json the `tokenizers` library gives nearly the ids of 2018. The rules of text_utils.py become
regular expressions that put a blank wherever a word is split, before the text is lower-cased. Texts with equal ids, for
the released vocabulary; in brackets with the tokenizer that transformers has for this network:

    400 texts, most of them made to be difficult (250: tests/goldens)    370 (156)
    11,226 stories and endings of the Story Cloze Test                  11,226 (9,337)
    8,996 sentences of CoLA, QNLI and MRPC                              8,996 (6,684)

Not expressed: ftfy's repair of wrongly decoded text, most HTML entities, wide letters, URLs, rare runs of quotes, a
final sigma. In a text the names of special tokens and <unk> are these tokens.
"""

import json
import os
import re
import textwrap
from collections import defaultdict

from datasets import SPECIAL
from options import INCIDENTAL
from text_utils import CURRENCY, PUNCT, QUOTES, SYMBOLS, UNITS, char_ranges, load_rules
from utils import read_json

ALONE, IN_RUNS = '!";?+,)(*[]}{_', '-~/|'               # signs that blanks surround: each one, or a run of equal ones
# what ftfy and text_standardize replace most often, and white space
CLEAN = (('[‘’‚‛]', "'"), ('[“”„‟]', '"'), ('\r\n?|[\u2028\u2029\x85]', '\n'), ('[—–―]', '-'), ('…', '...'), ('´', "'"),
         ('[\0-\x08\x0b\x0e-\x1f\x7f\ufeff]', ''), ('&amp;', '&'), ('&lt;', '<'), ('&gt;', '>'), ('&quot;', '"'),
         ('&nbsp;', ' '), (r'\A\s+|\s+\z', ''), (r'\s*\n\s*', ' \n '), (r'[^\S\n]+', ' '))
LOWER, ALPHA, BLANK = 'a-zß-öø-ÿ', 'A-Za-zÀ-ÖØ-öø-ÿ', r'\s'


def one_of(texts, before='') -> str:
    """A regular expression for one of the texts, the longest that fits, each after the expression `before`."""
    return '|'.join(before + re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text)))


def signs_of(table) -> str:
    """The single characters in a table of text_utils, for use inside the brackets of a regular expression."""
    single = {entry[-1] for entry in table if len(entry.lstrip('\\')) == 1}
    return re.escape(''.join(sorted(single - {*ALONE, *IN_RUNS})))


def splits() -> list[str]:
    """Expressions of the empty places where blanks are put, one after the other; a blank precedes each chunk of text.

    The order is that of `text_utils.split_chunk`: prefixes, suffixes, exceptions, and the inside of what remains.
    """
    alone, in_runs, symbol = re.escape(ALONE), map(re.escape, IN_RUNS), char_ranges(SYMBOLS)
    signs = signs_of(PUNCT + QUOTES) + symbol                          # are split off at both ends of a chunk
    first = f'{signs}§%={signs_of(CURRENCY)}'                          # at its beginning
    dot = rf'(?<=[0-9{LOWER}%²:|\'"`«»]|[A-Z][A-Z])(?=\.)'             # before a dot that may be split off
    end = rf"(?=(?:[{signs}]|'[sS]|{dot}\.)*(?:\s|\z))"                # only what is split off follows
    units = '|'.join(sorted(CURRENCY + UNITS, key=len, reverse=True))
    rests, starts, heads = defaultdict(set), defaultdict(set), defaultdict(set)        # the parts of exceptions
    for text, words in load_rules()[0].items():
        if len(text) > 1 and not {*text} & {*ALONE, *IN_RUNS, *' \n\t'}:
            rests[text[0]].add(text[1:])
            starts[text[-1]].add(text[:-1])
            for i in range(1, len(words)):
                heads[''.join(words[i:])].add(''.join(words[:i]))
    rest_of = {re.escape(sign): one_of(rest) for sign, rest in rests.items() if re.match(f'[{first}]', sign)}
    start_of = {re.escape(sign): one_of(start, BLANK) for sign, start in starts.items()}
    last_of = {sign: start for sign, start in start_of.items() if re.match(f'[{signs}]', sign[-1])}

    # a sign stays where it begins or ends an exception; two backticks are one sign
    prefixes = '|'.join([
        rf'(?<=\s[{first}])(?<!\s[{"".join(rest_of)}`])(?=\S)', r'(?<=\s`)(?=[^\s`])',
        r'(?<=\s``|\sUS\$|\sC\$|\sA\$)(?=\S)',
        *(rf'(?<=\s{sign})(?!(?:{rest}){end})(?=\S)' for sign, rest in rest_of.items())])
    suffixes = '|'.join([
        rf'(?<=\S)(?=[{signs}]{end})(?![{"".join(last_of)}`])', rf'(?<=[^\s`])(?=`{{1,2}}{end})',
        *(rf'(?<=[^\s{sign}])(?={sign}{{1,2}}{end})(?<!{start})' for sign, start in last_of.items())])
    return [
        '|'.join([rf'(?<=[{alone}])|(?=[{alone}])',
                  *(rf'(?<={sign})(?!{sign})|(?<!{sign})(?={sign})' for sign in in_runs)]),
        prefixes, prefixes, prefixes,                                  # each finds one of several
        r'(?<=[^.\s])(?=\.\.)|(?<=\.\.)(?=[^.\s])',
        suffixes,
        rf"(?<=\S)(?='[sS]{end})",
        rf'{dot}(?=\.{end})(?<!{start_of[re.escape(".")]})',
        rf'(?<=[0-9])(?=(?:{units}){end})',
        '|'.join(rf'(?={re.escape(tail)}{end})(?<={one_of(words, BLANK)})' for tail, words in heads.items()),
        rf'(?<=[{LOWER}])(?=\.[A-Z])(?<!\sPh)|(?<=[{LOWER}]\.)(?=[A-Z])(?<!\sPh\.)|(?<=[{ALPHA}])(?=[:<>=][{ALPHA}])'
        rf'|(?<=[{ALPHA}][:<>=])(?=[{ALPHA}])|(?<=[0-9])(?=\^[0-9])|(?<=[0-9]\^)(?=[0-9])|(?=[{symbol}])|(?<=[{symbol}])',
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
                   merges=merges)))


def template(vocabulary) -> dict:
    """The rule of the library that puts the special tokens around one text or two."""
    start, delimiter, classify = ({'SpecialToken': dict(id=token, type_id=0)} for token in SPECIAL)
    first, second = ({'Sequence': dict(id=name, type_id=0)} for name in 'AB')
    tokens = {token: dict(id=token, ids=[vocabulary[token]], tokens=[token]) for token in SPECIAL}
    return dict(type='TemplateProcessing', single=[start, first, classify],
                pair=[start, first, delimiter, second, classify], special_tokens=tokens)


CARD = """---
library_name: transformers
tags: [openai-gpt]
---
# {name}

{text}

```python
{code}
```

{ids}
"""
WITH_TOKENIZER = """\
tokenizer.json gives the ids of the training for all of 11,226 stories and endings of the Story Cloze Test, and for 370
of 400 texts that were made to be difficult (OpenAIGPTTokenizer of transformers: 9,337 and 156). The rest are mostly
texts in a wrong encoding, which only `TextEncoder` in text_utils.py of the reproduction repairs."""
WITHOUT_TOKENIZER = """\
Warning: the tokenizer of transformers gives other ids than the network was trained with, in one of six stories of the
Story Cloze Test. Give the network the ids of `TextEncoder` in text_utils.py of the reproduction."""
# how the network is used, by its class in the library: name of the loader, and the code
USE = {
    'OpenAIGPTLMHeadModel': ('AutoModelForCausalLM', """\
ids = tokenizer('once upon a time', return_tensors='pt').input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=20)[0]))"""),
    'OpenAIGPTForSequenceClassification': ('AutoModelForSequenceClassification', """\
inputs = tokenizer('a text', truncation=True, return_tensors='pt')
print(model(**inputs).logits, model.config.id2label)"""),
    'OpenAIGPTDoubleHeadsModel': ('OpenAIGPTDoubleHeadsModel', """\
choices = ['the context'] * 2, ['one answer', 'the other']
inputs = tokenizer(*choices, padding=True, truncation=True, return_tensors='pt')
last = inputs.attention_mask.sum(1) - 1     # of each choice the token _classify_
print(model(inputs.input_ids[None], mc_token_ids=last[None]).mc_logits)"""),
}


def model_card(name: str, folder: str, trained, architecture: str, has_tokenizer: bool) -> str:
    """README.md of an exported network: what it is, how it was trained and scored, how it is loaded.

    folder: that of the run or the weights, with results.json if a run wrote it. trained: see `open_trained`.
    architecture: the name of its class in the library. Raises ValueError if results.json is no json object.
    """
    size, config, path = trained.options, trained.config, os.path.join(folder, 'results.json')
    results = read_json(path) if os.path.lexists(path) else {}
    lines = [f'A network of {size.n_layer} blocks, {size.n_embd} wide, with {size.n_head} heads, for at most '
             f'{trained.model.transformer.n_ctx} tokens, as in "Improving Language Understanding by Generative '
             f'Pre-Training" (OpenAI, 2018). It was exported from {os.path.basename(os.path.abspath(folder))}, '
             f'{"a run" if config or results else "weights"} of a PyTorch reproduction, as {architecture}.']
    if config:
        kind = (f'the classes are {", ".join(config["classes"])}' if config['classes'] else
                'it gives a number in the unit of the labels')
        lines.append(f'It was fine-tuned by train.py on {config["options"]["dataset"]}; {kind}.')
    options = config.get('options') or results.get('options')
    if isinstance(options, dict):
        lines.append('Options of the training: ' + ', '.join(
            f'{key}={value}' for key, value in options.items() if key not in INCIDENTAL) + '.')
    for kind, what in (('valid', 'validation'), ('test', 'test')):
        score, trivial = results.get(f'{kind}_score'), results.get(f'{kind}_trivial')
        if isinstance(score, float) and isinstance(trivial, float):
            lines.append(f'On the {what} examples: {results.get("metric")} {score:.2f} (the best constant answer: '
                         f'{trivial:.2f}).')
    if architecture == 'OpenAIGPTForSequenceClassification':
        lines.append('The head of transformers has no bias, so that of the trained head is in the last layer '
                     'normalisation: logits are as trained, but hidden states, and what a language model would predict '
                     'from them, are not.')
    loader, use = USE[architecture]
    if config and config['form'] == 'pair':
        use = use.replace("'a text'", "'one text', 'the other'")
    code = [f'from transformers import AutoTokenizer, {loader}', f'tokenizer = AutoTokenizer.from_pretrained({name!r})',
            f'model = {loader}.from_pretrained({name!r})', use]
    return CARD.format(name=name, text='\n\n'.join(textwrap.fill(line, 120) for line in lines), code='\n'.join(code),
                       ids=WITH_TOKENIZER if has_tokenizer else WITHOUT_TOKENIZER)
