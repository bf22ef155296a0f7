"""New versions that are no good."""

import time

from lib.stack import Failed as StackFailed

from . import Failed

# Ends at once; runs and never serves; serves and never gets ready, for it asks another database.
BROKEN = {
    "ends at once": "#!/bin/sh\necho broken >&2\nexit 1\n",
    "runs and never listens": "#!/bin/sh\nexec sleep 600\n",
    "never gets ready": "#!/bin/sh\nDATABASE_URL='host=/nowhere user=snip dbname=snip' exec {good} \"$@\"\n",
}


def broken(world):
    good = world.stack.plan().binary
    for number, (how, script) in enumerate(BROKEN.items()):
        binary = world.folder / f"broken-{number}"
        binary.write_text(script.replace("{good}", str(good)))
        binary.chmod(0o755)
        began = time.monotonic()
        try:
            world.stack.restart(binary=binary)
        except StackFailed as error:
            world.note(f"a version that {how}: {time.monotonic() - began:.0f} s; {error}")
        else:
            raise Failed(f"a version that {how} was deployed")
        if world.stack.plan().binary != good:
            raise Failed("the broken version is what the next start would use")
