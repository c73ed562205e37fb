"""The tool that makes the published recipes and fingerprints, and the files that it made."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.maintain import fingerprints as making
from emubench.data import fingerprints, recipes, tasks


@pytest.mark.parametrize("name", tasks.names())
def test_the_published_recipe_is_what_is_written_of_it(name):
    prints = {size: fingerprints.published(name, size) for size in tasks.SIZES}
    written = making.recipe_text(tasks.get(name), {size: found for size, found in prints.items() if found})
    assert (fingerprints.folder() / f"{name}.toml").read_text() == written


def test_making_the_files_again_changes_nothing_but_the_machine(data, tmp_path):
    making.write(data, tmp_path, ["lorenz63-partial"], ["tiny"])
    made = recipes.read(tmp_path / "lorenz63-partial.toml")
    kept = recipes.read(fingerprints.folder() / "lorenz63-partial.toml")
    assert made.model_copy(update={"fingerprint": {}}) == kept.model_copy(update={"fingerprint": {}})
    for name, array in made.fingerprint["tiny"]["arrays"].items():
        again = kept.fingerprint["tiny"]["arrays"][name]
        assert array["mask_sha256"] == again["mask_sha256"]
        np.testing.assert_allclose(array["values"], again["values"], atol=1e-2)
