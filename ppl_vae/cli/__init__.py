"""The command ``ppl-vae``: each file parses, makes one public call and prints."""
