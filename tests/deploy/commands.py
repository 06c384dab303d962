"""The commands and settings that a guide tells people to type."""

import re
import shlex

import typer

from common.cli.main import app
from common.service import folders

#: How ours is called; what start.py knows beside it.
OURS = {"wan", "start.py"}
OF_START = {"test", "lock", "--once"}


def blocks(text, *languages):
    """Return the contents of a guide's fenced blocks of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for language, body in found if language in languages]


def lines(text):
    """Yield the words of each command of the shell blocks, without comments."""
    for block in blocks(text, "bash", ""):
        for line in block.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a quote that goes on in the next line: a body
                continue
            if words:
                yield words


def inline(text):
    """Yield commands of ours that stand in the text, between backticks."""
    without = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"`([^`]+)`", without):
        words = quoted.split()
        if len(words) > 1 and words[0] == "wan" and re.fullmatch(r"[a-z-]+", words[1]):
            yield words


def ours(text):
    """Yield the arguments of each `wan` command of a guide."""
    for words in (*lines(text), *inline(text)):
        for at, word in enumerate(words):
            before = words[at - 1] if at else ""
            run_alone = before in ("", "--") or "=" in before
            if word == "start.py":
                run_alone = before == "python"
            in_container = "exec" in words[:at] or "--args" in words[:at]
            if word in OURS and (run_alone or in_container):
                arguments = words[at + 1 :]
                if arguments[:1] == ["generate"] and " " in arguments[1]:
                    arguments.insert(1, "SERVICE")  # start.py has a default for it
                if arguments and arguments[0] not in OF_START:
                    yield arguments
                break


def check(arguments):
    """
    Look a command up as `wan` itself does, without running it.

    Raises:
        AssertionError: no such command or option; it says which.
    """
    command = typer.main.get_command(app)
    context = command.context_class(command, info_name="wan")
    rest = [re.sub(r"[.,;:]$", "", word) for word in arguments]
    while hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        names = rest.pop(0).replace("SERVICE", folders()[0].name).split("|")
        for name in (one for one in names if one != "…"):
            try:
                found = command.get_command(context, name)
            except Exception as error:
                raise AssertionError(f"{name}: {error}") from None
            assert found is not None, f"there is no {name!r}"
        command = found
        context = command.context_class(command, parent=context, info_name=name)
    known = {
        option: one
        for one in command.get_params(context)
        for option in (*one.opts, *one.secondary_opts)
    }
    for word in rest:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"{command.name} has no {word}"
    return command
