"""What every test relies on."""

from __future__ import annotations

from hypothesis import settings

# A machine that is busy with other things is no failure of the code.
settings.register_profile("rallypoint", deadline=None)
settings.load_profile("rallypoint")
