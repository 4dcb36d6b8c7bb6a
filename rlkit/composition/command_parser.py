"""The parser of the commands: a mistake is one line, with the nearest word."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from rlkit.errors import UserError, suggest

_CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        wrong = _CHOICE.search(message)
        near = suggest(wrong[1], re.findall(r"[\w-]+", wrong[2])) if wrong else ""
        raise UserError(f"{message}{f'.{near} See' if near else '; see'} {self.prog} --help")
