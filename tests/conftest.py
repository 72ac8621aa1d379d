import torch

torch.set_num_threads(1)                                # toy tensors: threads only wait for each other
