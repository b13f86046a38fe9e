"""pyproject.toml → **lowest versions**: a pin for each lower bound, as constraints.

    make test-lowest

An installation without constraints.txt may have any version that pyproject.toml allows:
mostly the newest, beside other packages an older one. `make test` tries what is pinned.
"""

import sys
import tomllib

from packaging.requirements import Requirement

from deploy.constraints import ROOT

# What runs and trains. Tools of the tests may be the newest.
EXTRAS = ("cpu", "import", "train")


def lowest() -> list[str]:
    """Constraints for pip: the lower bound of each package, where there is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = project["dependencies"] + [line for e in EXTRAS for line in optional[e]]
    return sorted(
        {
            f"{requirement.name}=={bound.version}"
            for requirement in map(Requirement, lines)
            for bound in requirement.specifier
            if bound.operator == ">="
        }
    )


if __name__ == "__main__":
    sys.stdout.writelines(f"{pin}\n" for pin in lowest())
