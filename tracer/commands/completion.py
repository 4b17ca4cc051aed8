"""``dxray completion``."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from ..errors import DxrayError
from ..trace import open_trace

__all__ = ["Completion", "candidates"]

_BASH: Final = """\
_dxray() {
    local IFS=$'\\n'
    COMPREPLY=($(dxray completion --complete "$COMP_CWORD" -- bash "${COMP_WORDS[@]}" 2>/dev/null))
    if [[ ${COMPREPLY[0]-} == *. ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o bashdefault -o default -F _dxray dxray
"""
_ZSH: Final = """\
#compdef dxray
_dxray() {
    local -a found
    found=(${(f)"$(dxray completion --complete $((CURRENT - 1)) -- zsh "${words[@]}" 2>/dev/null)"})
    if (( $#found )); then
        compadd -Q -S '' -- ${(M)found:#*.}
        compadd -Q -- ${found:#*.}
    else
        _files
    fi
}
compdef _dxray dxray
"""
_FISH: Final = """\
complete -c dxray -a '(dxray completion --complete=-1 -- fish (commandline -opc) (commandline -ct) 2>/dev/null)'
"""
_SCRIPTS: Final = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}
_MOST: Final = 60
"""Names listed in full; of more than that, the next part."""
_SAFE: Final = re.compile(r"[\w.-]+", re.ASCII)
"""Names of modules that are offered: a shell pastes them as they are, and a trace is untrusted."""
_LAYERS: Final = {"glob", "layer", "modules"}
"""Arguments that name modules of the trace."""


class Completion:
    """Print what makes a shell complete commands, options and layers.

      bash    eval "$(dxray completion bash)"       in ~/.bashrc
      zsh     eval "$(dxray completion zsh)"        in ~/.zshrc, after compinit
      fish    dxray completion fish | source        in ~/.config/fish/config.fish

    After the path of a trace, the names of its layers are completed where one is expected.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("shell", choices=sorted(_SCRIPTS), metavar="SHELL", help="bash, zsh or fish")
        parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
        parser.add_argument("--complete", type=int, metavar="N", help=argparse.SUPPRESS)

    def run(self, options: argparse.Namespace) -> int:
        if options.complete is None:
            print(_SCRIPTS[options.shell], end="")
            return 0
        words: list[str] = options.words
        at = options.complete if options.complete >= 0 else len(words) + options.complete
        for candidate in candidates(words[1:at], words[at] if at < len(words) else ""):
            print(candidate)
        return 0


def candidates(before: Sequence[str], word: str) -> list[str]:
    """What a word of the command line may become.

    Args:
        before: The words before it, without the ``dxray``.
        word: Its beginning. Nothing is offered where a file is expected: that is the shell's to complete.
    """
    from ..cli import command_parser

    parser = command_parser()
    commands = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if not before:
        return _beginning(word, [*commands, *_options(parser)])
    command = commands.get(before[0])
    if command is None:
        return []
    complete = getattr(command.get_default("command"), "complete", None)
    own = complete(before[1:], word) if complete is not None else None
    return _beginning(word, own) if own is not None else _arguments(command, before, word)


def _arguments(command: argparse.ArgumentParser, before: Sequence[str], word: str) -> list[str]:
    """What argparse knows of a command's options and arguments."""
    expected = _option(command, before[-1])
    if expected is None:
        if word.startswith("-"):
            return _beginning(word, _options(command))
        positionals = [action for action in command._actions if not action.option_strings]
        given = len(_given(command, before[1:]))
        expected = positionals[given] if given < len(positionals) else None
    if expected is None:
        return []
    if expected.choices is not None:
        return _beginning(word, map(str, expected.choices))
    return _layers(_given(command, before[1:]), word) if expected.dest in _LAYERS else []


def _layers(given: Sequence[str], word: str) -> list[str]:
    """Modules of the trace that is named before, by the beginning of their names."""
    names: list[str] = []
    if given:
        with contextlib.suppress(DxrayError, OSError):
            names = [name for name in open_trace(given[0]).modules if name.startswith(word) and _SAFE.fullmatch(name)]
    if len(names) <= _MOST:
        return names
    parts = (name.find(".", len(word) + 1) for name in names)
    return list(dict.fromkeys(name if end < 0 else name[: end + 1] for name, end in zip(names, parts, strict=True)))


def _given(command: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words that are neither options nor their values."""
    found, value = [], False
    for word in words:
        option = _option(command, word)
        if not value and option is None and not word.startswith("-"):
            found.append(word)
        value = option is not None
    return found


def _option(command: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option that takes the next word as its value."""
    option = command._option_string_actions.get(word)
    return option if option is not None and option.nargs != 0 else None


def _options(parser: argparse.ArgumentParser) -> list[str]:
    shown = (action for action in parser._actions if action.help != argparse.SUPPRESS)
    return [name for action in shown for name in action.option_strings if name.startswith("--")]


def _beginning(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]
