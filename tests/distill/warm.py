"""Preparation of every process of the tests: made once, in the server that forks them."""

import gc

import torch

from tests.distill.world import teacher, web

torch.set_num_threads(1)  # a pool of threads would not survive the fork
teacher(), web()
gc.freeze()  # or each of them would look for garbage in all of torch
