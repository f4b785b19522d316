"""Options that commands share; flag, environment variable and configuration key are one name.

``--cache-size`` is ``BYTESTAG_CACHE_SIZE`` is ``cache_size``, in this order of precedence; then
comes the default. The configuration file is TOML, one flat table.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.output import Chosen, Output
from bytestag.cli.values import Address, Duration, Size
from bytestag.errors import UsageError

if TYPE_CHECKING:
    from bytestag.daemon.settings import NodeSettings

LEVELS = ("debug", "info", "warning", "error")
COPIES_MAX = 64
NODE_ID_HINT = "a node's ID follows from its keys: choose them with --identity FILE"

Function = Callable[..., int]
Decorator = Callable[[Any], Any]


def command(
    help_text: str,
    *decorators: Decorator,
    log_verbose: int = 0,
    is_lenient: bool = False,
    cls: type[click.Command] = click.Command,
) -> Callable[[Function], click.Command]:
    """Make a command of a function that takes an :class:`Output` and returns the exit code.

    ``log_verbose`` is how much it logs unless told, as a number of ``-v``. One that is lenient
    runs without a configuration file that is wrong, and gets what is wrong as ``config``.
    """

    def decorate(function: Function) -> click.Command:
        def call(
            *, json: bool, quiet: int, verbose: int, color: str, config: object, **values: Any
        ) -> int:
            output = Output(is_json=json, quiet=quiet, verbose=verbose, color=color)
            if is_lenient:
                values["config"] = config
            chosen = click.get_current_context().find_object(Chosen)
            if chosen is not None:
                chosen.output = output
            configure_logging(
                values.pop("log_level", None),
                values.pop("log_filename", None),
                verbose=max(verbose, log_verbose),
                is_quiet=bool(quiet),
            )
            try:
                return function(output, **values)
            finally:
                output.end_progress()

        result: Any = call
        for decorator in reversed((*decorators, *COMMON)):
            result = decorator(result)
        result = _config_option(_try_config if is_lenient else _load_config)(result)
        made: click.Command = click.command(function.__name__, cls, help=help_text)(result)
        return made

    return decorate


def option(*names: str, **attributes: Any) -> Decorator:
    """Return an option with its environment variable."""
    flag = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "BYTESTAG_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **attributes)


# --- The configuration file ----------------------------------------------------------------------


def _load_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    """Give the file's values to the options that come after; unknown keys are refused."""
    if path is None:
        from bytestag import basedir

        path = basedir.config_dir() / "config.toml"
        if not path.exists():
            return None
    ctx.default_map = {**read_config(path), **(ctx.default_map or {})}
    return path


def _try_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> UsageError | None:
    """Give the file's values to the options that come after; return what is wrong with it."""
    try:
        _load_config(ctx, param, path)
    except UsageError as error:
        return error
    return None


def _config_option(callback: Callable[..., object]) -> Decorator:
    return click.option(
        "--config",
        envvar="BYTESTAG_CONFIG",
        type=click.Path(path_type=Path, dir_okay=False),
        is_eager=True,
        callback=callback,
        help="Configuration file (TOML).",
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file. Raises UsageError, with the name that may have been meant."""
    import tomllib

    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is not TOML: {error}") from error
    known = known_keys()
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "keys are flags with underscores"
            raise UsageError(f"{str(path)!r}: {key!r} is not known", hint=hint)
        if isinstance(value, dict):
            raise UsageError(f"{str(path)!r}: {key!r} is a table", hint="the file is one table")
    return values


def known_keys() -> set[str]:
    """Return the keys that a configuration file may have: the options of all commands."""
    from bytestag.cli.main import COMMANDS, load

    return {
        param.name
        for name in COMMANDS
        for param in load(name).params
        if isinstance(param, click.Option) and param.name not in (None, "config", "node_id")
        if param.name is not None
    }


# --- Logging -------------------------------------------------------------------------------------


def configure_logging(
    level: str | None, filename: str | None, *, verbose: int, is_quiet: bool
) -> None:
    """Send the log to standard error or to a file. The one place that configures logging."""
    import logging

    if level is None:
        level = ("warning", "info", "debug")[min(verbose, 2)]
        if is_quiet and not filename:
            level = "critical"
    handler: logging.Handler
    if filename:
        try:
            handler = logging.FileHandler(filename, encoding="utf-8", delay=False)
        except OSError as error:
            raise UsageError(f"cannot write the log to {filename!r}: {error.strerror}") from error
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("bytestag")
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


# --- What the options say ------------------------------------------------------------------------


def node_settings(values: Mapping[str, Any]) -> NodeSettings:
    """Return what a person said about the node to run; options that a command lacks are unset."""
    from bytestag.config import TransferLimits
    from bytestag.daemon.settings import NodeSettings

    return NodeSettings(
        host=values.get("host") or "",
        port=values.get("port") or 0,
        known_nodes=tuple(values.get("known_node") or ()),
        network=values.get("network") or "",
        state_directory=_optional(values.get("state_dir")),
        store_directory=_optional(values.get("store_dir")),
        identity=_optional(values.get("identity")),
        cache=values.get("cache_dir") or "",
        cache_bytes=values.get("cache_size"),
        copies=values.get("copies") or 8,
        keep_seconds=values.get("keep") or 0,
        has_hints=values.get("hints", True),
        limits=TransferLimits(
            upload=values.get("limit_upload") or 0,
            download=values.get("limit_download") or 0,
            peer_upload=values.get("limit_peer_upload") or 0,
            peer_download=values.get("limit_peer_download") or 0,
            is_background=values.get("background", False),
        ),
        serves_store=values.get("serve_store", False),
    )


def absolute_path(path: Path) -> Path:
    """Return a path from the root, as a person means it: ``~`` and ``..`` are resolved.

    A ``~`` without such a user is a name.
    """
    return Path(os.path.abspath(os.path.expanduser(path)))


def _optional(path: Path | None) -> Path | None:
    return absolute_path(path) if path is not None else None


# --- Groups of options ---------------------------------------------------------------------------


def _refuse_node_id(_ctx: click.Context, _param: click.Parameter, value: object) -> None:
    if value is not None:
        raise UsageError("a node ID cannot be chosen", hint=NODE_ID_HINT)


COMMON = (
    option("--json", is_flag=True, help="Print JSON."),
    option("-q", "--quiet", count=True, help="Print the answer only; twice: nothing."),
    option("-v", "--verbose", count=True, help="Say more; twice: everything, with tracebacks."),
    option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        help="Colours on standard error.",
    ),
)

STATE = option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of identity, known nodes and shares.",
)
STORE = option(
    "--store-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the content store.",
)
LIMITS = (
    option("--limit-upload", type=Size(), metavar="RATE", help="Bytes a second to all peers."),
    option("--limit-download", type=Size(), metavar="RATE", help="Bytes a second from all peers."),
    option("--limit-peer-upload", type=Size(), metavar="RATE", help="Bytes a second to each peer."),
    option(
        "--limit-peer-download", type=Size(), metavar="RATE", help="Bytes a second from each peer."
    ),
    option("--background", is_flag=True, help="Let everything else on the line go first."),
)
NETWORK = (
    option("--host", help="Address to bind."),
    option("--port", type=click.IntRange(0, 65_535), default=0, help="UDP port to bind."),
    option(
        "--known-node",
        type=Address(),
        multiple=True,
        metavar="HOST:PORT",
        help="A node of the network to meet; may be repeated.",
    ),
    option("--network", metavar="NAME", help="Name of the network to be in."),
    STATE,
    option(
        "--identity",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Key file of the node; made if it does not exist.",
    ),
    *LIMITS,
    click.option("--node-id", hidden=True, callback=_refuse_node_id, expose_value=False),
    option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="What is logged."),
    option("--log-filename", metavar="FILE", help="Where to log to, instead of standard error."),
)

TIMEOUT = option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the first verified byte.",
)
HINTS = option(
    "--hints/--no-hints",
    default=True,
    help="Put addresses of this node into links, and use those in links.",
)
PUBLISHING = (
    option(
        "--copies",
        type=click.IntRange(1, COPIES_MAX),
        default=8,
        show_default=True,
        help="Donors that shall hold each value.",
    ),
    option(
        "--keep",
        type=Duration(),
        default="90d",
        show_default=True,
        help="How long donors are asked to keep it; 0: a day or less, as 2012.",
    ),
    HINTS,
)

CACHE = (
    option(
        "--cache-size",
        type=Size(),
        help="Space given to others, such as 50GiB; 0 stores nothing. "
        "Default: 10 % of the free disk, at most 10 GiB.",
    ),
    option(
        "--cache-dir",
        metavar="DIR",
        help="Where that space is: a directory, or the URL of a PostgreSQL database.",
    ),
)
