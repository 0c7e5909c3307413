"""Run the command ``ppl-vae`` as ``python -m ppl_vae.cli``."""

from ppl_vae.cli.main import main

if __name__ == "__main__":
    main()
