"""Packages whose names are imported when they are first used, so that help and small programs need no PyTorch."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy(package: str, names: Mapping[str, str], **renamed: str) -> Callable[[str], object]:
    """The ``__getattr__`` of a package: imports a name, or a module of the package, when it is first asked for.

    Args:
        package: name of the package.
        names: by module, the names of the package that are defined there, with blanks between them.
        renamed: names that are other ones where they are defined, each as ``module:name``.
    """
    places = {name: f"{module}:{name}" for module, each in names.items() for name in each.split()} | renamed

    def load(name: str) -> object:
        import random  # Not before signals are handled.

        state = random.getstate()
        try:
            return imported(name)
        finally:  # rich, for one, draws from this generator when it is imported.
            random.setstate(state)

    def imported(name: str) -> object:
        if name in places:
            import pkgutil  # Not before signals are handled.

            value: object = pkgutil.resolve_name(places[name])
        else:
            missing = AttributeError(f"module {package!r} has no attribute {name!r}")
            if name.startswith("_"):
                raise missing
            try:
                value = importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
                raise missing from None
        setattr(sys.modules[package], name, value)
        return value

    return load
