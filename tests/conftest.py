import os

os.environ['OMP_NUM_THREADS'] = '1'                     # toy tensors: threads only wait for each other, here and in
                                                        # the processes that tests start, whose sums are to be the same
import torch  # noqa: E402

torch.set_num_threads(1)
