"""OpenAI's Adam (opt.py of finetune-transformer-lm): scheduled rate, decoupled decay, one global gradient norm."""

import math
import warnings

import torch


def warmup_cosine(x: float, warmup: float = 0.002) -> float:
    """Factor of the rate at the fraction x of training: linear up to `warmup`, then half a cosine to 0."""
    return x / warmup if x <= warmup and warmup > 0 else 0.5 * (1 + math.cos(math.pi * x))


def warmup_constant(x: float, warmup: float = 0.002) -> float:
    """Linear up to `warmup`, then 1."""
    return x / warmup if x <= warmup and warmup > 0 else 1.0


def warmup_linear(x: float, warmup: float = 0.002) -> float:
    """Linear up to `warmup`, then 1; all of it times 1 - x."""
    return (x / warmup if x <= warmup and warmup > 0 else 1.0) * (1 - x)


SCHEDULES = {'warmup_cosine': warmup_cosine, 'warmup_constant': warmup_constant, 'warmup_linear': warmup_linear}

VERSION = tuple(map(int, torch.__version__.split('.')[:2]))
FUSED = VERSION >= (2, 4)  # older versions have the fused kernel of AdamW on CUDA alone


def check_settings(group: dict):
    """Raise ValueError, with the value in it, for a setting of a parameter group that is out of range."""
    if group['schedule'] not in SCHEDULES:
        raise ValueError(f'schedule={group["schedule"]!r}: choose from {", ".join(SCHEDULES)}')
    for name in ('lr', 'warmup', 'b1', 'b2', 'e', 'l2'):
        below = 1 if name in ('b1', 'b2') else math.inf
        if not 0 <= group[name] < below:
            raise ValueError(f'{name}={group[name]}: must be at least 0 and below {below}')
    if not group['t_total'] >= 1:
        raise ValueError(f't_total={group["t_total"]}: the schedule needs at least one update')
    if not group['max_grad_norm'] < math.inf:
        raise ValueError(f'max_grad_norm={group["max_grad_norm"]}: must be finite; -1 turns clipping off')


class OpenAIAdam(torch.optim.AdamW):
    """Adam with a scheduled rate and decoupled weight decay, in one fused pass over the parameters.

    With t updates completed before this one, k = t + 1, and gradients g scaled by max_grad_norm / max(norm,
    max_grad_norm), where norm is that of all parameters together:

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
        lrt = lr * schedule(t / t_total) * sqrt(1 - b2^k) / (1 - b1^k)
        p -= lrt * (m / (sqrt(v) + e) + l2 p)            l2 on tensors of more than one dimension, or all (vector_l2)

    So with a warm-up the first update has rate 0. In OpenAI's code the schedule and the increment of t race: on a CPU
    92 or 93 of the first 200 updates saw t + 1. The goldens were made with the order fixed, so that it sees t, as here.

    Torch's AdamW does p -= lr' / (1 - b1^k) * m / (sqrt(v / (1 - b2^k)) + eps) + lr' wd p, which is the same for
    lr' = lr * schedule, eps = e / sqrt(1 - b2^k) and wd = l2 * sqrt(1 - b2^k) / (1 - b1^k): `step` sets these and
    leaves the arithmetic to the fused kernel or, in a torch that has none for CPUs, to the plain AdamW.

    schedule: a name in SCHEDULES. warmup: a fraction of t_total. t_total: the number of updates in the schedule.
    l2, vector_l2, b1, b2, e and lr may differ between parameter groups. A parameter without a gradient does not change,
    and k in 1 - b1^k counts its own updates; where k scales e and l2, it counts those of its group.
    max_grad_norm <= 0: no clipping.
    kwargs: ignored with a warning, because the port accepts any. `grad_norm`: the norm of the last step's gradients
    before clipping (a tensor; None without clipping). Works under torch.amp.GradScaler.
    Raises ValueError, with the value in it, for an argument out of range, and once t is past t_total.
    """

    def __init__(self, params, lr, schedule, warmup, t_total, b1=0.9, b2=0.999, e=1e-8, l2=0, vector_l2=False,
                 max_grad_norm=-1, **kwargs):
        if kwargs:
            warnings.warn(f'OpenAIAdam ignores {", ".join(kwargs)}', stacklevel=2)
        self.own = dict(schedule=schedule, warmup=warmup, t_total=t_total, b1=b1, b2=b2, e=e, l2=l2,
                        vector_l2=vector_l2, max_grad_norm=max_grad_norm, t=0)
        self.grad_norm = None
        check_settings({**self.own, 'lr': lr})
        super().__init__(params, lr=lr, fused=FUSED, foreach=False)
        self._step_supports_amp_scaling = False  # GradScaler then unscales the gradients and skips an overflow

    def add_param_group(self, param_group):
        """Add parameters, as one group with decay and one without."""
        group = {**self.own, **param_group}
        check_settings({**self.defaults, **group})
        params = [group['params']] if isinstance(group['params'], torch.Tensor) else list(group['params'])
        params = [p[1] if isinstance(p, tuple) else p for p in params]  # of model.named_parameters()
        for decays in (True, False):
            part = [p for p in params if (p.ndim > 1 or bool(group['vector_l2'])) == decays]
            if part:
                super().add_param_group({**group, 'l2': group['l2'] if decays else 0, 'params': part})

    def __getstate__(self):
        return {**super().__getstate__(), 'own': self.own, 'grad_norm': self.grad_norm}

    def clip(self):
        """What gradients are to be divided by, max(norm, max_grad_norm) / max_grad_norm, in float32; None: nothing."""
        limit = self.param_groups[0]['max_grad_norm']
        grads = [p.grad for group in self.param_groups for p in group['params'] if p.grad is not None]
        if limit <= 0 or not grads:
            return None
        norms = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in grads]
        self.grad_norm = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))
        return (self.grad_norm.clamp(min=limit) / limit).float()

    def divide_gradients(self, scale):
        """Divide the gradients in place, in float32 at least, as the fused kernel does with `grad_scale`."""
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    wide = p.grad.to(torch.promote_types(p.grad.dtype, torch.float32))
                    p.grad.copy_(wide / scale.to(p.grad.device))

    def load_state_dict(self, state_dict):
        """Load moments and settings; of what another version of torch wrote, the settings that are ours."""
        names = (*self.own, 'lr', 'params')
        groups = [{**group, **{name: saved[name] for name in names}}
                  for group, saved in zip(self.param_groups, state_dict['param_groups'], strict=True)]
        super().load_state_dict({**state_dict, 'param_groups': groups})

    @torch.no_grad()
    def step(self, closure=None):
        """One update; returns the closure's loss, if there is one."""
        for group in self.param_groups:
            if group['t'] > group['t_total']:
                raise ValueError(f'{group["t"]} updates are done, but t_total={group["t_total"]} is the end of the '
                                 'schedule: give t_total as many as all updates')
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self.clip()
        if self.defaults['fused']:
            self.grad_scale = scale
        elif scale is not None:
            self.divide_gradients(scale)
        peaks = [group['lr'] for group in self.param_groups]
        for group in self.param_groups:
            b1, b2 = group['betas'] = group['b1'], group['b2']
            k = group['t'] + 1
            group['lr'] *= SCHEDULES[group['schedule']](group['t'] / group['t_total'], group['warmup'])
            group['eps'] = group['e'] / math.sqrt(1 - b2 ** k)
            group['weight_decay'] = group['l2'] * math.sqrt(1 - b2 ** k) / (1 - b1 ** k)
        try:
            super().step()
            for group in self.param_groups:
                group['t'] += 1
        finally:
            for group, lr in zip(self.param_groups, peaks, strict=True):
                group['lr'] = lr
            self.grad_scale = None
        return loss
