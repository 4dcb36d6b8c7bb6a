"""The generation config that a saved model carries: one that transformers agrees to save.

Many published models have settings that contradict each other, such as a temperature with
do_sample=false. transformers loads and uses them, but `save_pretrained` refuses them.
"""

from __future__ import annotations

import copy
from typing import Any

DECIDING = ("do_sample", "num_beams", "return_dict_in_generate", "use_cache")
"""Settings that say whether others are of use."""


def mend_generation_config(model: Any) -> str | None:
    """Change what keeps the model's generation config from being saved, in place.

    Sampling settings without do_sample get do_sample=true, which keeps all the numbers; a setting
    that still contradicts others goes. Returns a line that says what changed, or None if nothing
    had to. rlkit itself reads nothing but the end tokens.
    """
    config = getattr(model, "generation_config", None)
    if config is None or refusal(config) is None:
        return None
    (mended, changes), (sampling, others) = _without_refused(config), _sampling(config)
    if len(others) < len(changes):
        mended, changes = sampling, ["do_sample=true", *others]
    vars(config).clear()
    vars(config).update(vars(mended))
    return (
        "transformers would not save the model's generation config, which contradicts itself; it "
        f"is saved with {', '.join(changes)}."
    )


def refusal(config: Any) -> str | None:
    """Why transformers would not save a generation config, if so."""
    try:
        config.validate(strict=True)
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)
    return None


def _sampling(config: Any) -> tuple[Any, list[str]]:
    """`_without_refused` of the config with do_sample=true."""
    changed = copy.deepcopy(config)
    changed.do_sample = True
    return _without_refused(changed)


def _without_refused(config: Any) -> tuple[Any, list[str]]:
    """A copy without the settings that are refused beside those before them, and their names."""
    mended, blank = copy.deepcopy(config), type(config)()
    given = {n: v for n, v in vars(config).items() if v is not None and not n.startswith("_")}
    for name in given:
        _unset(mended, blank, name)
    removed = []
    for name in sorted(given, key=lambda name: name not in DECIDING):
        setattr(mended, name, given[name])
        if refusal(mended) is not None:
            _unset(mended, blank, name)
            removed.append(f"no {name}")
    return mended, removed


def _unset(config: Any, blank: Any, name: str) -> None:
    if hasattr(blank, name):
        setattr(config, name, getattr(blank, name))
    else:
        delattr(config, name)
