"""How good a fit is: log-likelihood by importance sampling, and the ELBO site by site."""
