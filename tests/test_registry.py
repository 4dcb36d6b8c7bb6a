"""One table a kind: how parts get in, what an unknown or a double name is told, the two guards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import rlkit
from algorithms.ppo import PPO
from rlkit import plugins, registry
from rlkit.errors import UserError
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.plugin_parts import register_from_plugins
from rlkit.plugins import KINDS, import_plugin
from rlkit.registry import (
    alias,
    build,
    entry,
    from_import_path,
    kind_of_class,
    names,
    variant,
)
from tests.cli import ROOT

LOSS = """
from rlkit.batch import LossOutput, Term
from rlkit.interfaces import LossConfig, PolicyLoss
from rlkit.registry import register


class NamedConfig(LossConfig):
    strength: float = 1.0
    \"\"\"A number.\"\"\"


@register("loss", "{name}")
class Named(PolicyLoss[NamedConfig]):
    Config = NamedConfig

    def __call__(self, policy, batch):
        return LossOutput(terms=[Term(name="policy", value=policy.logp, mask=batch.mask)])


class Unnamed(Named):
    pass
"""


@pytest.fixture(autouse=True)
def _same_parts_afterwards() -> Iterator[None]:
    """What a test registers is gone after it: other tests list every registered part."""
    plugins.load_parts()
    before = dict(registry._table)
    yield
    registry._table.clear()
    registry._table.update(before)


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=False
    )


def test_build_takes_the_fields_that_differ() -> None:
    loss = rlkit.build("loss", "remix", epsilon=0.1)
    assert loss.config.epsilon == 0.1 and loss.config.aggregation == "token-mean"
    assert rlkit.build("loss", "remix").config.epsilon == 0.2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: rlkit.build("loss", "remx"),
            "no loss called 'remx'. Did you mean 'remix'? Known:",
        ),
        (
            lambda: rlkit.build("loss", "mine.losses.Own"),
            "'mine.losses.Own'. A class of your own is given as mine.losses:Own. Known:",
        ),
        (lambda: rlkit.build("loss", "./own.py"), "of your own is given as ./own.py:Class."),
        (lambda: rlkit.build("los", "remix"), "no kind of part called 'los'. Did you mean 'loss'?"),
        (lambda: rlkit.build("loss", "remix", epslon=1), "loss.epslon. Did you mean 'epsilon'?"),
        (lambda: rlkit.build("loss", "remix", epsilon=-1), "loss.epsilon=-1 is not valid"),
        (lambda: rlkit.names("buffers"), "Did you mean 'buffer'?"),
        (lambda: from_import_path("loss", "algorithms.remix:Remx"), "Did you mean 'Remix'?"),
        (lambda: from_import_path("loss", "algorithms.remix:mix_window"), "takes (policy, batch)"),
        (lambda: from_import_path("buffer", "algorithms.remix:mix_window"), "is not a part"),
        (
            lambda: from_import_path("loss", "algorithms.advantages.group_norm:GroupNorm"),
            "is an advantage, not a loss: write advantage=algorithms.advantages.group_norm:Group",
        ),
        (
            lambda: rlkit.register("loss", "fn")(cast("Any", len)),
            "loss 'fn' is not a part: a loss is a class",
        ),
        (lambda: import_plugin("no_such_plugin"), "no module named 'no_such_plugin'"),
        (lambda: import_plugin("./no_such.py"), "./no_such.py does not exist"),
    ],
)
def test_a_wrong_name_is_told_the_nearest(call, said) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert said in str(caught.value)


def test_every_kind_lists_its_names_sorted() -> None:
    for kind in KINDS:
        assert rlkit.names(kind) == sorted(rlkit.names(kind)) and rlkit.names(kind)


def test_a_user_part_comes_in_by_file_by_class_path_and_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "user_parts_one.py"
    path.write_text(LOSS.format(name="user_one"))
    found = from_import_path("loss", f"{path}:Named")
    assert found.name == "user_one"
    assert rlkit.build("loss", "user_one", strength=2).config.strength == 2
    assert from_import_path("loss", f"{path}:Unnamed").name == "Unnamed"
    assert isinstance(rlkit.build("loss", f"{path}:Unnamed"), PolicyLoss)
    assert entry("loss", "user_one").source == path


def test_two_parts_of_one_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    for name in ("user_two_a", "user_two_b"):
        (tmp_path / f"{name}.py").write_text(LOSS.format(name="twice"))
    import_plugin(str(tmp_path / "user_two_a.py"))
    with pytest.raises(UserError, match=r"loss 'twice': .*user_two_a:Named and .*user_two_b:Named"):
        import_plugin(str(tmp_path / "user_two_b.py"))


def test_a_subclass_that_restates_a_default_keeps_bounds_and_documentation() -> None:
    grpo, ppo = (entry("loss", name).config.model_fields for name in ("grpo", "ppo"))
    assert grpo["aggregation"].default != ppo["aggregation"].default
    for name, field in grpo.items():
        assert field.description, name
    assert set(LossConfig.model_fields) < set(ppo)


VARIANTS = """
from algorithms.ppo import PPO
from rlkit.registry import variant

narrow = variant("user_narrow", of=PPO, clip_high=0.1, advantages=("gae",), doc="PPO, narrow.")
narrower = variant("user_narrower", of=narrow, clip_low=0.05, doc="Narrower still.")
"""


def test_a_variant_is_the_part_with_other_defaults_and_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "user_variants.py"
    path.write_text(VARIANTS)
    import_plugin(str(path))
    ppo, narrow, narrower = (
        rlkit.build("loss", name) for name in ("ppo", "user_narrow", "user_narrower")
    )
    assert isinstance(narrower, type(narrow)) and isinstance(narrow, type(ppo))
    assert narrow.config.model_dump() == ppo.config.model_dump() | {"clip_high": 0.1}
    assert narrower.config.model_dump() == narrow.config.model_dump() | {"clip_low": 0.05}
    assert (ppo.advantages, narrow.advantages, narrower.advantages) == ((), ("gae",), ("gae",))
    assert type(narrow).__doc__ == "PPO, narrow."
    assert entry("loss", "user_narrow").source == path
    with pytest.raises(ValueError, match="frozen"):
        narrow.config.clip_high = 0.3


def test_a_variant_keeps_types_bounds_and_documentation() -> None:
    dapo, ppo = (entry("loss", name).config for name in ("dapo", "ppo"))
    assert list(dapo.model_fields) == list(ppo.model_fields)
    theirs, ours = (c.model_json_schema()["properties"] for c in (ppo, dapo))
    assert theirs["clip_high"] != ours["clip_high"]
    assert theirs["clip_high"] | {"default": 0.28} == ours["clip_high"]
    with pytest.raises(UserError, match=r"loss.clip_high=-1 is not valid"):
        rlkit.build("loss", "dapo", clip_high=-1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clip_hgh": 0.1}, "variant 'x': ppo has no setting 'clip_hgh'. Did you mean 'clip_high'"),
        ({"ratio": 0.1}, "variant 'x': ppo has no setting 'ratio'"),
        ({"clip_high": -1}, "variant 'x': loss.clip_high=-1 is not valid"),
        ({"delta": 1.1}, "variant 'x': loss.delta=1.1 must be above 1 + clip_high"),
    ],
)
def test_a_variant_of_a_wrong_setting_is_refused_where_it_is_written(settings, said) -> None:
    with pytest.raises(UserError) as caught:
        variant("x", of=entry("loss", "ppo").cls, doc="Wrong.", **settings)
    assert said in str(caught.value)
    assert "x" not in rlkit.names("loss")


def test_a_variant_is_of_a_registered_part() -> None:
    class Unregistered(PPO):
        """PPO without a name."""

    with pytest.raises(UserError, match="is of Unregistered, which is not registered"):
        variant("x", of=Unregistered, doc="Of nothing.")


@pytest.mark.parametrize("kind", KINDS)
def test_the_import_path_of_every_part_is_its_class(kind: str) -> None:
    """Also of variants, which must be assigned to a variable of their name."""
    for name in rlkit.names(kind):
        found = entry(kind, name)
        assert from_import_path(kind, found.import_path) is found


def test_an_alias_builds_the_part_under_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_aliases", dict(registry._aliases))
    alias("loss", "old_name", "remix")
    assert entry("loss", "old_name") is entry("loss", "remix")
    assert rlkit.build("loss", "old_name", epsilon=0.1).config.epsilon == 0.1
    assert "old_name" not in rlkit.names("loss")


def test_the_namesake_on_pypi_is_refused(tmp_path: Path) -> None:
    info = tmp_path / "rlkit-0.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rlkit\nVersion: 0.2.0\n")
    result = python("import rlkit", ROOT, tmp_path)
    assert "another project called rlkit (version 0.2.0)" in result.stderr
    assert python("import rlkit", ROOT).returncode == 0


def test_a_part_that_a_plugin_holds_is_registered_by_its_name(
    own_registry: None, tmp_path: Path
) -> None:
    """What `reward=./mine.py:doubled` did in the run, where only name and plugin were saved."""
    file = tmp_path / "doubling.py"
    file.write_text("def doubled(completions):\n    return [2.0] * len(completions)\n")
    register_from_plugins("reward", "absent", [str(file)])
    assert not {"absent", "doubled"} & {*names("reward")}
    register_from_plugins("reward", "doubled", [str(file)])
    assert build("reward", "doubled")(["p"], ["c"]) == [2.0]
    register_from_plugins("reward", "math", ["/no/such/file.py"])


def test_the_kind_of_a_class_is_that_of_its_interface() -> None:
    class Loose(PolicyLoss[LossConfig]):
        """Of no name."""

    assert kind_of_class(PPO) == kind_of_class(Loose) == "loss"
    assert kind_of_class(entry("reward", "exact").cls) == "reward"
    assert kind_of_class(int) is None and kind_of_class("loss") is None
