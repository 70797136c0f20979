from __future__ import annotations

import subprocess
import sys

LEAN = "import sys; from rallypoint.lean_asyncio import import_asyncio; import_asyncio();"


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_loop_runs_and_ssl_is_not_imported() -> None:
    python(f"{LEAN} import asyncio; asyncio.run(asyncio.sleep(0)); assert '_ssl' not in sys.modules")


def test_who_wants_ssl_afterwards_has_it() -> None:
    python(f"{LEAN} import ssl; ssl.create_default_context()")


def test_what_was_imported_before_stays_as_it_is() -> None:
    python(f"import asyncio.sslproto; {LEAN} assert asyncio.sslproto.ssl is sys.modules['ssl']")
    python(f"import ssl; {LEAN} assert sys.modules['ssl'] is ssl; import asyncio.sslproto; assert asyncio.sslproto.ssl")
