"""The files of RACE: a passage a file, or Hugging Face's with a question a row."""

import math
import os
import re
import stat
from argparse import Namespace

from tasks.base import WORDS, Files, Split, Task, as_text, build_split, files_of, find_folder, join, no_files
from tasks.readers import read_rows
from utils import HIDDEN, is_there, read_json

LEVELS = ('middle', 'high')  # schools of the exams


def passages(folder: str) -> list[str]:
    """Paths of the *.txt of a folder: 1.txt, 2.txt, ..., 10.txt by their numbers, then others by their names."""
    names = os.listdir(folder) if is_there(folder, stat.S_ISDIR) else ()
    names = [name for name in names if name.lower().endswith('.txt') and not name.startswith(HIDDEN)]
    numbers = {name: int(name[:-4]) for name in names if re.fullmatch('[0-9]+', name[:-4])}
    return [os.path.join(folder, name) for name in sorted(names, key=lambda name: (numbers.get(name, math.inf), name))]


def race_files(folder: str, files: Files, kind: str) -> list[str]:
    """Paths of the files of a kind of RACE, middle before high: the archive's folders, or Hugging Face's files."""
    found = [path for word in WORDS[kind] for level in LEVELS
             for path in passages(os.path.join(folder, word, level))]
    found = found or [path for level in LEVELS
                      for path in files_of(folder, files._replace(patterns=(f'{level}/{{}}',)), kind)]
    return found or files_of(folder, files, kind)


def race_rows(files: Files, path: str):
    """Place, level, (article, question, options) and answer of each question in a file of RACE."""
    if not path.lower().endswith('.txt'):  # Hugging Face's: a row for each question
        for place, (name, *texts, answer) in read_rows(path, ('example_id', *files.columns), files.label, lists=True):
            yield place, next((level for level in LEVELS if str(name).startswith(level)), ''), texts, answer
        return
    passage = read_json(path)
    article, questions, options = (passage.get(name) for name in ('article', 'questions', 'options'))
    answers = passage.get('answers', [None] * len(questions) if isinstance(questions, list) else None)
    if not (isinstance(article, str) and all(isinstance(field, list) for field in (questions, options, answers))
            and len(questions) == len(options) == len(answers)):
        raise ValueError(f'{path} is no passage of RACE: article, and as many questions as options and answers')
    article, level = article.strip(), os.path.basename(os.path.dirname(os.path.abspath(path)))
    for i, (question, of_question, answer) in enumerate(zip(questions, options, answers, strict=True), start=1):
        yield f'question {i}', level, (article, question, of_question), answer


def read_questions(task: Task, paths: list[str], labelled: bool = False, in_parts: bool = True) -> Split:
    """The questions of files of RACE: article, question, four options.

    The levels are parts, middle before high; without in_parts the order is that of the files.
    """
    names = ('article', 'question', *(f'option {letter}' for letter in task.classes))
    levels, articles = {level: [] for level in (*LEVELS, '')}, {}
    for path in paths:
        for place, level, (article, question, options), answer in race_rows(task.files, path):
            texts = [article, question, *options] if isinstance(options, list) else []
            if len(texts) != len(names) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f'{path}, {place}: not an article, a question and a list of {len(names) - 2} options')
            article = articles.setdefault(article, article)  # once in memory for all its questions
            levels[level if level in LEVELS and in_parts else ''].append(
                (f'{path}, {place}', [article, *(text.strip() for text in texts[1:])], as_text(answer)))
    splits = {level: build_split(task, names, rows, paths[0], labelled) for level, rows in levels.items() if rows}
    if not splits:
        raise ValueError(f'{paths[0]} has no questions')
    return join(splits)._replace(parts={}) if '' in splits else join(splits)


def load_race(task: Task, options: Namespace) -> tuple[Split, Split, Split | None]:
    """RACE, trained on middle and high together."""
    folder = find_folder(options.data_dir, task.files, find=race_files)
    train, valid, test = (race_files(folder, task.files, kind) for kind in ('train', 'validation', 'test'))
    if not valid:
        raise no_files(folder, task.files, 'validation')
    splits = [read_questions(task, train, labelled=True), read_questions(task, valid, labelled=True),
              read_questions(task, test) if test else None]
    for i, (paths, split) in enumerate(zip((train, valid, test), splits, strict=True)):
        if split and len(split.parts) == 1:
            splits[i] = split.noted(f'{paths[0]}: there are questions of {next(iter(split.parts))} alone')
    splits[0] = splits[0]._replace(parts={})
    if test and splits[2].texts != read_questions(task, test, in_parts=False).texts:
        splits[2] = splits[2].noted(f'{test[0]}: predictions are of the questions of middle first, then of those of '
                                    'high, not in the order of the file')
    return tuple(splits)


def read_race(task: Task, path: str, options: Namespace) -> Split:
    """The questions of one file, or of a folder with folders middle and high."""
    if not is_there(path, stat.S_ISDIR):
        return read_questions(task, [path], in_parts=False)
    paths = [file for folder in (*(os.path.join(path, level) for level in LEVELS), path) for file in passages(folder)]
    if not paths:
        raise FileNotFoundError(f'{path} has no passages: files 1.txt, 2.txt, ... in it, or in middle/ and high/')
    return read_questions(task, paths)
