import json

import pytest
from test_datasets import HEADER, folder_of, story, write

import analysis
from datasets import TEST_NAME


@pytest.fixture
def files(tmp_path):
    """A test file of four stories (labels 0 1 0 1), predictions (0 1 1 1) and a log of two evaluations."""
    folder_of(tmp_path, n=4)
    (tmp_path / 'p.tsv').write_text('index\tprediction\n0\t0\n1\t1\n2\t1\n3\t1\n')
    lines = [{'desc': 'x', 'lr': 1}, {'va_acc': 70.123}, {'va_acc': 60.}]
    (tmp_path / 'other-name.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return tmp_path


def run(folder):
    return analysis.rocstories(str(folder), str(folder / 'p.tsv'), str(folder / 'other-name.jsonl'))


def test_the_two_lines_of_the_original(files, capsys):
    assert run(files) == (70.123, 75.)
    assert capsys.readouterr().out == 'ROCStories Valid Accuracy: 70.12\nROCStories Test Accuracy:  75.00\n'


def test_a_test_file_without_labels(files, capsys):
    write(files / TEST_NAME, [row[:-1] for row in [HEADER] + [story(i) for i in range(4)]])
    assert run(files) == (70.123, None)
    assert 'Test Accuracy:  unknown' in capsys.readouterr().out


def test_wrong_files_are_named(files):
    (files / 'p.tsv').write_text('index\tprediction\n0\t1\n')
    with pytest.raises(ValueError, match='has 1 predictions, .* has 4 stories'):
        run(files)
    (files / 'p.tsv').write_text('nothing\n')
    with pytest.raises(ValueError, match='p.tsv has 0 predictions'):
        run(files)
    (files / 'p.tsv').write_text('index\tguess\n0\t1\n')
    with pytest.raises(ValueError, match='p.tsv is not a submission'):
        run(files)
    (files / 'other-name.jsonl').write_text('{"desc": "x"}\n')
    with pytest.raises(ValueError, match='no evaluation yet'):
        run(files)
    (files / 'other-name.jsonl').write_text('{"desc": "x"\n')
    with pytest.raises(ValueError, match='is not a log'):
        run(files)
