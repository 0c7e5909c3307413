"""Digits of which few have a label: the accuracy of M2's classifier on the test set of MNIST.

    python benchmarks/semisupervised.py --data DIR --out rows.jsonl [--labels 100 600 3000]
        [--draws 5] [--device cuda]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from json_lines import ResultLines
from torch import Tensor, nn

from ppl_vae import encode, fit
from ppl_vae.guides.classifier import ClassifierGuide
from ppl_vae.models.semisupervised import SemisupervisedModel

CLASSES = 10


class Noisy(nn.Module):
    def __init__(self, hidden, noise, drop):
        super().__init__()
        layers = [nn.Linear(784, hidden)]
        self.noise = noise
        self.net = nn.Sequential(nn.Linear(784, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, 10))

    def forward(self, x):
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        return self.net(x)
