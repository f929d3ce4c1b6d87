"""Motivated training in the loops of other libraries, a file for each; nothing else imports them."""


def missing(package: str, extra: str) -> ModuleNotFoundError:
    """The error for a library that is not installed, with the command that installs it."""
    return ModuleNotFoundError(
        f"seeking.integrations.{extra} needs {package}, which is not installed; run: pip install 'seeking[{extra}]'",
        name=package,
    )
