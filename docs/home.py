"""The program of the home page, whose figures stand beside it."""

import torch
from sklearn.datasets import load_digits

from ppl_vae import build, fit, generate, predictive_check
from ppl_vae.guides.normal import NormalGuide
from ppl_vae.models.bernoulli import BernoulliModel
from ppl_vae.plots import image_grid

x = torch.as_tensor(load_digits().data > 7).float()  # 1,797 digits of 64 pixels
model, guide = build(BernoulliModel, x), build(NormalGuide, x)
history = fit(model, guide, x, validation=0.1, epochs=200, patience=20)
check = predictive_check(model, guide, x)  # where does the model differ from the data?
digits = generate(model, guide, x, num_samples=40).reshape(40, 8, 8)
figures = check.plot(), image_grid(digits)
