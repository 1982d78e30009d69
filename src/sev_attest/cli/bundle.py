"""Options that belong together, as a type: each field is declared with the option that fills it.

A command names its bundles and gets one argument for each::

    class KeyOptions(Options, title="Keys"):
        tik: str | None = option("--tik", type=FILE, help="TIK of the session.")

    @click.command("validate", cls=Command)
    @KeyOptions.given("keys")
    def command(*, keys: KeyOptions) -> None: ...

These are no dataclasses: making one takes 0.8 ms at each start, a bundle 0.02 ms.
"""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn, Self, TypeVar, dataclass_transform

import click
from click.core import ParameterSource

from sev_attest.cli.environment import VariableOption
from sev_attest.cli.help import Helpful, HelpfulGroup, Option
from sev_attest.cli.usage import combined, usage
from sev_attest.errors import Unsupported

Function = TypeVar("Function", bound=Callable[..., Any])
_BUNDLES = "__bundles__"


class _Declared:
    """An option, until a command takes it."""

    __slots__ = ("names", "settings", "title")

    def __init__(self, names: tuple[str, ...], settings: dict[str, object]) -> None:
        self.names = names
        self.settings = settings
        self.title = ""

    def __call__(self, function: Function, *field: str) -> Function:
        """Give a command the option, as an argument of the option's name or as ``field``."""
        kind = VariableOption if "envvar" in self.settings else Option
        return click.option(*self.names, *field, cls=kind, **self.settings)(function)


def option(*names: str, **settings: object) -> Any:
    """Declare the option of a field, with the settings of ``click.option``."""
    return _Declared(names, settings)


def bare_option(*names: str, **settings: object) -> Callable[[Function], Function]:
    """Return a decorator: the command takes an option that is in no bundle."""
    return _Declared(names, settings)


def option_name(field: str) -> str:
    """Return the name of the option that fills a field."""
    return f"--{field.replace('_', '-')}"


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
class Options:
    """The base of all bundles: immutable values, one for each option.

    Nothing shows the values of a bundle: somebody may have typed a secret.
    """

    def __init__(self, **values: object) -> None:
        """Take a value for every field; raises TypeError if one is missing or unknown."""
        if values.keys() != self.declared().keys():
            raise TypeError(f"{type(self).__name__} has other fields than {', '.join(values)}")
        vars(self).update(values)

    def __init_subclass__(cls, *, title: str) -> None:
        """Note under which title the help lists the options that this class declares."""
        for value in vars(cls).values():
            if isinstance(value, _Declared):
                value.title = title

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: use replace()")

    @classmethod
    def declared(cls) -> dict[str, _Declared]:
        """Return the options by field, those of base classes first."""
        return {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, _Declared)
        }

    @classmethod
    def given(cls, name: str) -> Callable[[Function], Function]:
        """Return a decorator: the command takes these options, and gets them as ``name``."""

        def decorate(function: Function) -> Function:
            for field, found in reversed(cls.declared().items()):
                found(function, field)
            vars(function).setdefault(_BUNDLES, {})[name] = cls
            return function

        return decorate

    @classmethod
    def lacking(cls, _given: AbstractSet[str]) -> Iterator[Unsupported]:
        """Yield an error for what is needed of these options if some others are not given.

        ``_given`` are the fields and arguments of the command that have a value.
        """
        return iter(())

    def settled(self, _environment: AbstractSet[str]) -> Self:
        """Return the bundle without values of the environment that play no part.

        ``_environment`` are the fields that have their values from there.
        """
        return self

    @classmethod
    def none(cls) -> Self:
        """Return a bundle of which no option was given, whatever the defaults are."""
        return cls(**dict.fromkeys(cls.declared()))

    def replace(self, **changes: object) -> Self:
        """Return a copy in which these fields have other values."""
        return type(self)(**vars(self) | changes)

    def stated(self, *fields: str) -> list[str]:
        """Return the names of the options that were given, among those of these fields."""
        return [option_name(field) for field in fields if getattr(self, field) is not None]


class Command(Helpful):
    """A command that takes bundles; its help lists the options of each under its title."""

    @property
    def _bundles(self) -> dict[str, type[Options]]:
        found: dict[str, type[Options]] = getattr(self.callback, _BUNDLES, {})
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; raises one usage error for all that is missing."""
        try:
            return super().parse_args(ctx, args)
        except click.MissingParameter:
            # Click reads what was given first: what it has not read is missing too.
            required = [p for p in self.get_params(ctx) if p.required and p.name not in ctx.params]
            hint = f"`{ctx.command_path} --help` shows the options"
            missing = [click.MissingParameter(ctx=ctx, param=p).format_message() for p in required]
            # Click lists choices in lines of their own.
            errors = [usage(" ".join(message.split()), hint=hint) for message in missing]
            raise combined([*errors, *self._lacking(ctx)]) from None

    def _lacking(self, ctx: click.Context) -> Iterator[Unsupported]:
        """Yield the errors of the bundles for what is missing."""
        given = {
            name
            for name, value in ctx.params.items()
            if value and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        for bundle in self._bundles.values():
            yield from bundle.lacking(given)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command, with bundles in place of their options."""
        values = ctx.params.copy()  # ctx.params stays: the search for a mismatch's cause reads it
        environment = {
            name for name in values if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT
        }
        bundles = {
            name: bundle(**{field: values.pop(field) for field in bundle.declared()}).settled(
                environment
            )
            for name, bundle in self._bundles.items()
        }
        result: object = self.callback and ctx.invoke(self.callback, **values, **bundles)
        return result

    def titles(self) -> dict[str, str]:
        """Return under which title the help lists each option of a bundle."""
        return {
            field: found.title
            for bundle in self._bundles.values()
            for field, found in bundle.declared().items()
        }


class Group(HelpfulGroup):
    """A group of such commands."""

    command_class: type[click.Command] | None = Command
