import subprocess
import sys


def test_a_wrapper_brings_none_of_the_engine_along():
    """The engine is a program of its own; numpy and its painters would be 20 MB."""
    code = (
        "import sys, common.runtime, common.api.server\n"
        "print([name for name in sys.modules"
        " if name == 'numpy' or name.startswith('common.engine.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
