"""A reader's own program under torchrun, with a process group of its own: test_ranks.py runs it."""

import json

import torch.distributed as dist
from toy import TOY

import classifier


def parse_args(argv):
    assert not argv


def main(_):
    dist.init_process_group('gloo')
    rank, texts = dist.get_rank(), ['the cat sat', 'a sad dad ran', 'mom found a friend', 'the red ball']
    model = classifier.fit(texts * 5, [0, 1, 0, 1] * 5, desc='mine', model_path=TOY, n_embd=16, n_head=4, n_layer=3,
                           n_ctx=24, n_iter=1, n_batch=2, n_gpu=2, device='cpu')
    answers = model.predict(texts[:1] if rank == 0 else texts[1:])
    if rank == 0:
        model.predict(texts)  # the other process does not
    print(json.dumps(dict(n=len(answers), first=answers[0], group=dist.is_initialized())))
    dist.destroy_process_group()
