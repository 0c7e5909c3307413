"""The benchmark of checks runs, and its loop by hand finds our statistics."""

import importlib
import re

from benchmarks.test_mnist import FOLDER, command
