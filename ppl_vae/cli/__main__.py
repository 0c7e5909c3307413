"""``python -m ppl_vae.cli`` is the command."""

from ppl_vae.cli.main import main

if __name__ == "__main__":
    main()
