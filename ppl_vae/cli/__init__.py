"""The command ``ppl-vae``: each file parses one command, makes one public call and prints."""
