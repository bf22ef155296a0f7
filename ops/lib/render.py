"""Fills placeholders in configuration files: `${NAME}`, capitals only.

`$host` of Nginx, `{{ $value }}` of Prometheus and `${lower}` are left alone. The same files may be filled by the
envsubst of a container image. As a command, for scripts in another language:

    python3 ops/lib/render.py --into /etc/nginx/snip nginx/*.conf LISTEN=8080 …
"""

import re
import string
import sys
from pathlib import Path


class Template(string.Template):
    """Placeholders in braces alone; nothing is an escape and nothing is invalid."""

    pattern = r"\$(?:(?P<escaped>(?!))|(?P<named>(?!))|\{(?P<braced>[A-Z][A-Z0-9_]*)\}|(?P<invalid>(?!)))"
    flags = re.VERBOSE


def fill(text, values):
    """The text with all of its placeholders filled; one without a value is a ValueError."""
    template = Template(text)
    missing = sorted(set(template.get_identifiers()) - set(values))
    if missing:
        raise ValueError(f"no value for the placeholder {', '.join(missing)}")
    return template.substitute(values)


def fill_file(source, target, values):
    """Writes `source`, filled, to `target`, by way of a file beside it: readers see the old or the new one."""
    target = Path(target)
    beside = target.with_name(target.name + ".new")
    try:
        beside.write_text(fill(Path(source).read_text(), values))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    beside.replace(target)


def main(arguments):
    into, *rest = arguments[1:] or [None]
    values = dict(argument.split("=", 1) for argument in rest if "=" in argument)
    files = [argument for argument in rest if "=" not in argument]
    if into != "--into" or len(files) < 2:
        sys.exit("usage: render.py --into FOLDER FILE… [NAME=VALUE…]")
    folder = Path(files.pop(0))
    try:
        for file in files:
            fill_file(file, folder / Path(file).name, values)
    except (OSError, ValueError) as error:
        sys.exit(f"render: {error}")


if __name__ == "__main__":
    main(sys.argv)
