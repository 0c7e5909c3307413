"""``python -m ppl_vae``: the command ``ppl-vae``, as programs that start several processes call it.

``torchrun --nproc-per-node 2 -m ppl_vae fit ...`` fits on two processes.
"""

from ppl_vae.cli.main import main

main()
