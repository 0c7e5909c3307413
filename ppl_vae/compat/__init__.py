"""Private names of torch and Pyro that the library relies on, each with what is expected of it.

Nothing else in the library touches a name of torch or Pyro that begins with an underscore, so a
new version that changes one of these names is mended here. ``tests/compat/`` has one test per
name, which states the expectation and fails under that name.

Three kinds of names are not here, because torch and Pyro document them: the hooks that a messenger
overrides (``_pyro_sample``, ``_pyro_post_sample``, ``_pyro_param``, ...), the fields of a site's
message (``msg["scale"]``), and ``torch.nn.modules.module.register_module_forward_pre_hook``. The
keys with an underscore that Pyro writes into ``site["infer"]`` (``_deterministic``,
``_enumerate_dim``, ``_enumerate_symbol``, ``_dim_to_symbol``) are read where they are needed, and
``tests/compat/`` states what is expected of them as well.

Known to hold for torch 2.8 to 2.13 and Pyro 1.9.1 to 1.9.2, except where a docstring says more.
"""
