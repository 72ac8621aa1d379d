"""The paper's tasks, a row each: where the examples lie, what form and which classes they have, how they are scored.

To add a task, add a row to TASKS: files, form, classes, metrics, the names of submission files, and what these say for
each class; then further fields by name. `Task` in base.py says what each field means. Where files are not tables of
texts and labels, a function beside the row reads them: `loader` all of them, `reader` one of them, as in stories.py,
race.py and glue.py. `--dataset own` (own.py) needs no row.

Nothing here imports torch or numpy before files are read, because train.py needs names and defaults for --help.
"""

from tasks.base import Files, Task
from tasks.glue import PAIR, load_mnli, load_mrpc, load_qnli, load_sst2, sst2_rows
from tasks.race import load_race, read_race
from tasks.stories import load_stories, read_stories

ONE_TOWER = dict(n_batch=32, n_gpu=1)  # the paper's batch; examples of 10 to 100 tokens need no smaller towers
ACCURACY, F1 = ('accuracy',), ('f1', 'accuracy')
NLI, TWO_WAY = ('entailment', 'neutral', 'contradiction'), ('entailment', 'not_entailment')
AS_NUMBERS = ('0', '1')
GLUE = 'GLUE test'

TASKS = {
    'rocstories': Task(
        None, 'choices', ('0', '1'), ACCURACY, {'': 'ROCStories.tsv'},
        loader=load_stories, reader=read_stories, zero_shot=True, paper={'': dict(full=86.5)}),
    'cola': Task(
        Files(('CoLA', 'cola'), ('sentence',), ('label',), bare={4: (3, 1)}),
        'text', ('unacceptable', 'acceptable'), ('matthews', 'accuracy'), {'': 'CoLA.tsv'}, AS_NUMBERS,
        defaults=ONE_TOWER, zero_shot=True,
        paper={'': dict(full=45.4, no_pretraining=18.9, no_lm=47.9)}, paper_set=GLUE),
    'sst2': Task(
        Files(('SST-2', 'sst2', 'SST2', 'sst-2'), ('sentence',), ('label',), rows=sst2_rows,
              patterns=('{}', 'original/stsa.binary.{}', 'stsa.binary.{}'),
              answers=('labelled_test.tsv', 'original/stsa.binary.test', 'stsa.binary.test')),
        'text', ('negative', 'positive'), ACCURACY, {'': 'SST-2.tsv'}, AS_NUMBERS,
        loader=load_sst2, defaults=ONE_TOWER, zero_shot=True,
        paper={'': dict(full=91.3, no_pretraining=84.0, no_lm=92.0)}, paper_set=GLUE),
    'mrpc': Task(
        Files(('MRPC', 'mrpc'), (('#1 String', 'sentence1'), ('#2 String', 'sentence2')), ('Quality', 'label'),
              patterns=('{}', 'msr_paraphrase_{}'), answers=('msr_paraphrase_test.txt',)),
        'both', ('not_equivalent', 'equivalent'), F1, {'': 'MRPC.tsv'}, AS_NUMBERS,
        loader=load_mrpc, defaults=ONE_TOWER,
        paper={'': dict(full=82.3, no_pretraining=79.4, no_lm=84.9)}, paper_set=GLUE),
    'stsb': Task(
        Files(('STS-B', 'stsb', 'STSB', 'sts-b'), ('sentence1', 'sentence2'), ('score', 'label'),
              patterns=('{}', 'original/sts-{}', 'sts-{}'), bare={7: (5, 6, 4), 9: (5, 6, 4)},
              answers=('original/sts-test.csv', 'sts-test.csv')),
        'both', (), ('pearson', 'spearman'), {'': 'STS-B.tsv'}, limits=(0., 5.), defaults=ONE_TOWER,
        paper={'': dict(full=82.0, no_pretraining=30.9, no_lm=83.2)}, paper_set=GLUE),
    'qqp': Task(
        Files(('QQP', 'qqp'), ('question1', 'question2'), ('is_duplicate', 'label'), skip_broken=True),
        'both', ('not_duplicate', 'duplicate'), F1, {'': 'QQP.tsv'}, AS_NUMBERS, defaults=ONE_TOWER,
        paper={'': dict(full=70.3, no_pretraining=65.5, no_lm=69.8)}, paper_set=GLUE),
    'mnli': Task(
        Files(('MNLI', 'mnli'), PAIR, ('gold_label', 'label'), parts=('matched', 'mismatched'), no_majority=('-',),
              patterns=('{}', 'original/multinli_1.0_{}', 'multinli_1.0_{}')),
        'pair', NLI, ACCURACY, {'matched': 'MNLI-m.tsv', 'mismatched': 'MNLI-mm.tsv', 'AX': 'AX.tsv'},
        loader=load_mnli, defaults=ONE_TOWER,
        paper={'': dict(full=81.8, no_pretraining=75.7, no_lm=81.1),
               'matched': dict(full=82.1), 'mismatched': dict(full=81.4)}, paper_set=GLUE),
    'qnli': Task(
        Files(('QNLI', 'qnli', 'QNLIv2'), ('question', 'sentence'), ('label',)),
        'pair', TWO_WAY, ACCURACY, {'': 'QNLI.tsv'}, loader=load_qnli, defaults=ONE_TOWER,
        paper={'': dict(full=88.1, no_pretraining=71.2, no_lm=86.9)}, paper_set='GLUE test of QNLI v1'),
    'rte': Task(
        Files(('RTE', 'rte'), PAIR, ('label',)),  # premise and hypothesis in SuperGLUE
        'pair', TWO_WAY, ACCURACY, {'': 'RTE.tsv'}, defaults=ONE_TOWER,
        paper={'': dict(full=56.0, no_pretraining=53.8, no_lm=54.4)}, paper_set=GLUE),
    'wnli': Task(
        Files(('WNLI', 'wnli'), ('sentence1', 'sentence2'), ('label',)),
        'pair', ('not_entailment', 'entailment'), ACCURACY, {'': 'WNLI.tsv'}, AS_NUMBERS, defaults=ONE_TOWER),
    'snli': Task(
        Files(('snli_1.0', 'SNLI', 'snli'), PAIR, ('gold_label', 'label'), no_majority=('-', '-1'),
              patterns=('snli_1.0_{}', '{}', 'plain_text/{}')),
        'pair', NLI, ACCURACY, {'': 'SNLI.tsv'}, defaults=ONE_TOWER, paper={'': dict(full=89.9)}),
    'scitail': Task(
        Files(('SciTailV1.1', 'SciTail', 'scitail'), PAIR, ('gold_label', 'label'),
              labels={'entails': 0, 'entailment': 0, 'neutral': 1}, bare={3: (0, 1, 2), 4: (0, 1, 2)},
              patterns=('tsv_format/scitail_1.0_{}', 'snli_format/scitail_1.0_{}', 'snli_format/{}',
                        'dgem_format/scitail_1.0_structure_{}', 'scitail_1.0_{}', 'scitail_1.0_structure_{}', '{}',
                        'tsv_format/{}')),
        'pair', ('entails', 'neutral'), ACCURACY, {'': 'SciTail.tsv'}, defaults=ONE_TOWER, paper={'': dict(full=88.3)}),
    'race': Task(
        Files(('RACE', 'race'), ('article', 'question', 'options'), ('answer',),
              patterns=('{}/middle/1', '{}/high/1', 'middle/{}', 'high/{}', 'all/{}', '{}')),
        'question', ('A', 'B', 'C', 'D'), ACCURACY, {'': 'RACE.tsv'}, loader=load_race, reader=read_race,
        defaults=dict(n_batch=1, n_gpu=32), zero_shot=True,  # a question has four sequences of up to 512 tokens
        paper={'': dict(full=59.0), 'middle': dict(full=62.9), 'high': dict(full=57.4)}),
}

# the made-up data of data/make_sample.py, and a small model pre-trained on such stories: a run takes about a minute
SAMPLE = dict(data_dir='data/sample/', model_path='model/sample/', n_valid=120, n_batch=8, n_gpu=1, n_iter=3, lr=1e-3,
              lr_warmup=0.15, embd_pdrop=0., attn_pdrop=0., resid_pdrop=0., clf_pdrop=0.)


def sample_of(task: str, name: str, **defaults) -> Task:
    """The row of a task whose examples are made up."""
    return TASKS[task]._replace(submission={'': f'{name}.tsv'}, defaults=SAMPLE | defaults, zero_shot=False, paper={})


TASKS['sample'] = sample_of('rocstories', 'sample')
TASKS |= {f'sample-{name}': sample_of(name, f'sample-{name}', n_iter=6)
          for name in ('cola', 'rte', 'mrpc', 'stsb', 'race')}
