"""The frozen lake, a game of text: find the way to the goal around the holes."""

from __future__ import annotations

import random

DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
RULES = (
    "You are on a frozen lake: P is you, G the goal, O a hole, . is ice. Reach the goal without "
    "falling into a hole."
)


class Lake:
    """A square lake. Its map is drawn anew until a way to the goal exists."""

    def __init__(self, *, size: int, holes: float, slippery: float) -> None:
        self._size, self._holes, self._slippery = size, holes, slippery

    def reset(self, problem: int | None = None) -> str:
        """Draw a lake; with a number, that number's lake."""
        number = random.getrandbits(64) if problem is None else problem
        self._cells = drawn(random.Random(f"lake/{number}"), self._size, self._holes)
        self._place = (0, 0)
        return f"{RULES}\n\n{self._shown()}"

    @property
    def done(self) -> bool:
        """Whether the goal or a hole is reached."""
        return self._cells[self._place] != "."

    @property
    def turn_state(self) -> str:
        """The lake as it is shown, also when the episode begins with the rules before it."""
        return self._shown()

    def get_reward(self) -> float:
        """1 at the goal, else 0."""
        return float(self._cells[self._place] == "G")

    def move(self, direction: str) -> str:
        """Move one step.

        Args:
            direction: Where to go. (choices: ["up", "down", "left", "right"])

        Returns:
            The lake after the step.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"direction is one of {', '.join(DIRECTIONS)}")
        if random.random() < self._slippery:
            direction = random.choice(sorted(DIRECTIONS))
        row, column = (a + b for a, b in zip(self._place, DIRECTIONS[direction], strict=True))
        if (row, column) in self._cells:
            self._place = (row, column)
        return self._shown()

    def _shown(self) -> str:
        def mark(cell: tuple[int, int]) -> str:
            return "P" if cell == self._place else self._cells[cell]

        rows = range(self._size)
        return "\n".join("".join(mark((row, column)) for column in rows) for row in rows)


def drawn(draw: random.Random, size: int, holes: float) -> dict[tuple[int, int], str]:
    """A lake with a way from the first corner to the goal in the last: its cells by place."""
    goal = (size - 1, size - 1)
    while True:
        cells = {
            (row, column): "O" if draw.random() < holes else "."
            for row in range(size)
            for column in range(size)
        }
        cells[0, 0], cells[goal] = ".", "G"
        if goal in reached(cells):
            return cells


def reached(cells: dict[tuple[int, int], str]) -> set[tuple[int, int]]:
    """The places that can be reached from the first corner without a hole."""
    found, front = {(0, 0)}, [(0, 0)]
    while front:
        row, column = front.pop()
        for down, right in DIRECTIONS.values():
            place = (row + down, column + right)
            if place not in found and cells.get(place, "O") != "O":
                found.add(place)
                front.append(place)
    return found
