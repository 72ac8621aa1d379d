"""Write made-up data: stories in place of ROCStories, and small files in place of CoLA, RTE, MRPC, STS-B and RACE.
Also letters.csv, an example of a file of one's own.

    python data/make_sample.py                                          # all files of data/sample
    python data/make_sample.py --unlabelled 40000 --seed 1 --out FILE   # text for pre-training, one story per line

A story takes place in one of two worlds, the country or the town, and the right ending has a word of the same world:
after a story with gulls and hay comes a foal, not an invoice. Only pre-training on text shows which words belong to
the same world. Both worlds use the same sentence frames, an ending repeats no thing or action of its story, and
endings of both worlds are right equally often. So neither the ending alone, nor the words that it shares with its
story, tell which ending is right.

The other files are about the same worlds, one task for each form of input. They have the layout of the official files
and what breaks careless readers of those: open quotes, blanks at the end, `n/a` (see `roughen`), the byte order mark
and line ends of MRPC, rows of STS-B with two more columns, CoLA's missing last line end, texts of RACE in two lines.
"""
import csv
import io
import json
import os
import re
import sys
import uuid
from pathlib import Path
from random import Random

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from common.options import Parser, number
from common.shell import one_line_errors
from tasks.stories import ENDINGS, LABEL, SENTENCES, TEST_NAME, VAL_NAME
from utils import read_text, write_whole

SEED = 2018
N_LABELLED, N_TEST = 1080, 400
HEADER = ['InputStoryid', *SENTENCES, *ENDINGS, LABEL]

SHE = 'Anna Clara Dora Emma Helen Jane Lucy Mary Nina Rosa Ruth Sofia'.split()
HE = 'Ben David Frank Henry Jack Leo Max Oscar Paul Peter Simon Tom'.split()
KIN = 'mother father sister brother uncle aunt cousin grandmother grandfather'.split()
DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split()

WORLDS = read_text(Path(__file__).with_name('sample_worlds.txt'))  # places, things to see, things to do

# Sentence frames, the same for both worlds. Each {see} and {do} is replaced by a word of the world not used before.
FIRST = """
{N} spent the whole {day} {place}. / On {day} {N} was {place} again. / It was {day}, and {N} was {place}.
Early on {day} {N} and {his} {kin} were {place}. / {N} had a free day and spent it {place}.
"""
NEXT = """
There {he} saw {see} and {see}. / First {he} {do}. / {His} {kin} showed {him} {see}. / Then {he} {do} and {do}.
{He} had to look twice at {see}. / {N} thought about {see} for a while.
{His} {kin} {do} and talked about {see}.
Next to {see} {he} noticed {see}. / {N} {do} with {his} {kin}. / {He} told {his} {kin} about {see}.
Somebody pointed at {see}.
"""
END = """
At the end of the day {he} {do}. / Before {he} went home {he} {do}. / That night {N} dreamed of {see}.
Later {he} drew a picture of {see}. / {N} was glad to have seen {see}.
The last thing {N} remembered was {see}.
In the evening {N} still talked about {see}. / Tired and happy, {N} {do} once more.
"""

# For pairs of sentences that share things
THINGS = """
There {he} saw {see} and {see}. / {N} talked about {see} and {see}. / Next to {see} {he} noticed {see}.
{His} {kin} showed {him} {see} and {see}.
"""
# Questions about a passage, each with the frame of its answers
QUESTIONS = """
What else did {N} see?: {see} / What did {he} tell {his} {kin} about?: {see} / What else did {he} do?: {He} {do}.
That night {he} dreamed of _ .: {see} / In the evening {he} still talked about _ .: {see} / Then {N} _ .: {do}
"""
# Examples for training, for validation and in the test file; for RACE passages in each folder
SIZES = dict(cola=(480, 120, 40), rte=(320, 120, 40), mrpc=(320, 120, 120), stsb=(320, 120, 120), race=(12, 4, 6),
             letters=(300, 0, 0))


def choices(text):
    """The entries of a text, which slashes and line breaks separate."""
    return [entry for line in text.strip().split('\n') for entry in line.split(' / ')]


def parse(text):
    """Paragraphs of lines `key: entry / entry` -> a list of (places, things to see, things to do)."""
    return [tuple(choices('\n'.join(re.findall(f'^{key}: (.*)', paragraph, re.MULTILINE)))
                  for key in ('place', 'see', 'do')) for paragraph in text.split('\n\n')]


def pick(rng, items):
    """One of `items`. Python promises that rng.random() gives the same numbers in every version; it alone is used."""
    return items[int(rng.random() * len(items))]


def shuffled(rng, items):
    """A shuffled copy of `items`. rng.shuffle() may give another order in other versions of Python."""
    return sorted(items, key=lambda _: rng.random())


def draw_people(rng):
    """The words of a story that stay the same: the name, the pronouns, the relative and the day."""
    names, he, his, him = pick(rng, [(SHE, 'she', 'her', 'her'), (HE, 'he', 'his', 'him')])
    return dict(N=pick(rng, names), he=he, his=his, him=him, He=he.capitalize(), His=his.capitalize(),
                kin=pick(rng, KIN), day=pick(rng, DAYS))


def fill(rng, frames, people, world):
    """The sentences of `frames` with words of `world`, each used once."""
    places, see, do = world
    see, do, sentences = shuffled(rng, see), shuffled(rng, do), []
    for frame in frames:
        while '{see}' in frame:
            frame = frame.replace('{see}', see.pop(), 1)
        while '{do}' in frame:
            frame = frame.replace('{do}', do.pop(), 1)
        sentences.append(frame.format(place=pick(rng, places), **people))
    return sentences


def story_of(rng, worlds, i):
    """A story in world i: four sentences, the right ending, and a wrong ending in the other world."""
    people, end = draw_people(rng), pick(rng, choices(END))
    frames = [pick(rng, choices(FIRST)), *shuffled(rng, choices(NEXT))[:3], end]
    *story, right = fill(rng, frames, people, worlds[i])
    [wrong] = fill(rng, [pick(rng, choices(END))], people, worlds[1 - i])
    return story, right, wrong


def labelled(seed=SEED):
    """Rows of the two csv files, N_LABELLED and N_TEST stories that are all different."""
    rng, worlds, seen, files = Random(f'labelled {seed}'), parse(WORLDS), set(), []
    for n_stories in N_LABELLED, N_TEST:
        stories = []
        while len(stories) < n_stories:
            story = story_of(rng, worlds, len(stories) % 2)
            if ' '.join(story[0]) not in seen:
                seen.add(' '.join(story[0]))
                stories.append(story)
        answers, rows = [1, 2] * (n_stories // 2), []
        for (story, right, wrong), answer in zip(shuffled(rng, stories), shuffled(rng, answers), strict=True):
            story_id = str(uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(story)))
            endings = [right, wrong] if answer == 1 else [wrong, right]
            rows.append([story_id, *story, *endings, str(answer)])
        files.append(rows)
    return files


def unlabelled(n_stories, seed):
    """Texts of five sentences. No two of them, and no labelled story, have the same first four sentences."""
    rng, worlds, texts = Random(f'unlabelled {seed}'), parse(WORLDS), []
    seen = {' '.join(row[1:5]) for rows in labelled() for row in rows}
    while len(texts) < n_stories:
        story, right, _ = story_of(rng, worlds, pick(rng, [0, 1]))
        if ' '.join(story) not in seen:
            seen.add(' '.join(story))
            texts.append(' '.join([*story, right]))
    return texts


def roughen(i, text):
    """The text of row i, as real files have some: with a quote that nothing closes, a blank at its end, or `n/a`."""
    rough = {3: f'"{text}', 9: f'{text} ', 14: text.replace(' ', ' "', 1)}
    return 'n/a' if i == 7 else rough.get(i % 20, text)


def table(rows, end='\n'):
    """Rows of fields -> lines with tabs between the fields."""
    return ''.join('\t'.join(row) + end for row in rows)


def as_csv(rows):
    """Rows of fields -> the text of a csv file."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def parts(rows, sizes):
    """Rows -> {'train': rows, 'dev': rows, 'test': rows}"""
    n_train, n_dev, _ = sizes
    return dict(train=rows[:n_train], dev=rows[n_train:n_train + n_dev], test=rows[n_train + n_dev:])


def cola(rng, worlds, sizes):
    """A sentence is as the generator made it, or its words are shuffled."""
    rows = []
    for i in range(sum(sizes)):
        world, label = pick(rng, worlds), pick(rng, '01')
        frame = pick(rng, [*choices(FIRST), *choices(NEXT), *choices(END)])
        [text] = fill(rng, [frame], draw_people(rng), world)
        if label == '0':
            text = ' '.join(shuffled(rng, text[:-1].split(' '))) + '.'
        rows.append(['made', label, '*' if label == '0' else '', roughen(i, text)])
    files = parts(rows, sizes)
    test = [['index', 'sentence'], *([str(i), row[3]] for i, row in enumerate(files['test']))]
    return {'CoLA/train.tsv': table(files['train']), 'CoLA/dev.tsv': table(files['dev']).removesuffix('\n'),
            'CoLA/test.tsv': table(test)}


def rte(rng, worlds, sizes):
    """The hypothesis names a place of the premise's world, or of the other one."""
    rows, files = [], {}
    for i in range(sum(sizes)):
        people, world, label = draw_people(rng), pick(rng, [0, 1]), pick(rng, [0, 1])
        premise = ' '.join(fill(rng, shuffled(rng, choices(NEXT))[:2], people, worlds[world]))
        [hypothesis] = fill(rng, ['{N} was {place}.'], people, worlds[world ^ label])
        rows.append([roughen(i, premise), roughen(i + 5, hypothesis), ('entailment', 'not_entailment')[label]])
    for name, part in parts(rows, sizes).items():
        n_columns = 3 if name == 'test' else 4
        part = [['index', 'sentence1', 'sentence2', 'label'], *([str(i), *row] for i, row in enumerate(part))]
        files[f'RTE/{name}.tsv'] = table(row[:n_columns] for row in part)
    return files


def mrpc(rng, worlds, sizes):
    """Two sentences are from one world, or from both."""
    rows, header = [], ['Quality', '#1 ID', '#2 ID', '#1 String', '#2 String']
    for i in range(sum(sizes)):
        people, world, label = draw_people(rng), pick(rng, [0, 1]), pick(rng, [0, 1])
        frames = shuffled(rng, choices(NEXT))[:2]
        if label:
            first, second = fill(rng, frames, people, worlds[world])
        else:
            first, second = (fill(rng, [frame], people, worlds[world ^ k])[0] for k, frame in enumerate(frames))
        rows.append([str(label), str(2 * i), str(2 * i + 1), roughen(i, first), roughen(i + 5, second)])
    files = parts(rows, sizes)
    train = shuffled(rng, files['train'] + files['dev'])
    return {'MRPC/msr_paraphrase_train.txt': '\ufeff' + table([header, *train], '\r\n'),
            'MRPC/msr_paraphrase_test.txt': '\ufeff' + table([header, *files['test']], '\r\n'),
            'MRPC/dev_ids.tsv': table(row[1:3] for row in files['dev'])}


def stsb(rng, worlds, sizes):
    """The score of two sentences says whether they have two things in common, or one, or only the world, or nothing."""
    rows = []
    for i in range(sum(sizes)):
        people, world, level = draw_people(rng), pick(rng, [0, 1]), pick(rng, range(4))
        see, other = (shuffled(rng, worlds[k][1]) for k in (world, 1 - world))
        frames = shuffled(rng, choices(THINGS))[:2]
        things = see[:2], shuffled(rng, [see[:2], see[1:3], see[2:4], other[:2]][level])
        first, second = (frame.replace('{see}', '{}').format(*pair, **people)
                         for frame, pair in zip(frames, things, strict=True))
        rows.append(['main-made', 'sample', '2018', f'{i:04}', ('5.000', '3.800', '2.600', '0.200')[level],
                     roughen(i, first), roughen(i + 5, second), *['MIT', 'made'] * (i % 12 == 0)])
    return {f'STS-B/original/sts-{name}.csv': table(part) for name, part in parts(rows, sizes).items()}


def race(rng, worlds, sizes):
    """Of the four answers to a question about a passage, one belongs to its world."""
    files = {}
    folders = [(name, level, n) for name, n in zip(('train', 'dev', 'test'), sizes, strict=True)
               for level in ('middle', 'high')]
    for name, level, k in ((name, level, 8 + i) for name, level, n in folders for i in range(n)):
        people, world = draw_people(rng), k % 2
        entries = [entry.split(': ') for entry in shuffled(rng, choices(QUESTIONS))]
        frames = [pick(rng, choices(FIRST)), *shuffled(rng, choices(NEXT))[:4]]
        text = fill(rng, [*frames, *(answer for _, answer in entries)], people, worlds[world])
        answers = [pick(rng, 'ABCD') for _ in entries]
        options = [fill(rng, [answer] * 3, people, worlds[1 - world]) for _, answer in entries]
        for right, wrong, letter in zip(text[5:], options, answers, strict=True):
            wrong.insert('ABCD'.index(letter), right)
        passage = dict(answers=answers, options=options, questions=[entry[0].format(**people) for entry in entries],
                       article=' '.join(text[:3]) + '\n' + ' '.join(text[3:5]), id=f'{level}{k}.txt')
        files[f'RACE/{name}/{level}/{k}.txt'] = json.dumps(passage)
    return files


def letters(rng, worlds, sizes):
    """A file of one's own: the letter tells in which world its writer is; title and body have commas and quotes."""
    rows = [['title', 'body', 'place']]
    for i in range(sum(sizes)):
        people, world = draw_people(rng), pick(rng, [0, 1])
        title, *body = fill(rng, ['{day}, {N} and "{see}"', *shuffled(rng, choices(NEXT))[:2]], people, worlds[world])
        rows.append([title, roughen(i, ' '.join(body)), ('country', 'town')[world]])
    return {'letters.csv': as_csv(rows)}


def stand_ins(seed=SEED):
    """{name of a file in data/sample: its text} of what is not ROCStories."""
    return {name: text for task in (cola, rte, mrpc, stsb, race, letters)
            for name, text in task(Random(f'{task.__name__} {seed}'), parse(WORLDS), SIZES[task.__name__]).items()}


def main(args):
    if args.unlabelled:
        files = {args.out: ''.join(f'{text}\n' for text in unlabelled(args.unlabelled, args.seed))}
    else:
        tables = zip((VAL_NAME, TEST_NAME), labelled(args.seed), strict=True)
        made = {name: as_csv([HEADER, *rows]) for name, rows in tables} | stand_ins(args.seed)
        files = {args.out / name: text for name, text in made.items()}
    for path, text in files.items():
        with write_whole(path, 'wb') as f:  # bytes: the line ends are those of the text
            f.write(text.encode())


def parse_args(argv=None):
    parser = Parser('data/make_sample.py', __doc__)
    group = parser.add_argument_group('what to write')
    group.add_argument('--unlabelled', type=number(int, 1), metavar='N', help='N stories for pre-training, as one text')
    group.add_argument('--seed', type=int, default=SEED, help='each seed gives other stories')
    group.add_argument('--out', type=Path, default=Path(__file__).parent / 'sample', help='folder for the files; with '
                       '--unlabelled the file')
    return parser.parse_args(argv)


if __name__ == '__main__':
    with one_line_errors():
        main(parse_args())
