"""`make million`: how long the pages of the admin take with a million promises in the table, and a tree of 1,000.

Fills a PostgreSQL of its own, asks through Django's test client, and prints medians; `ARGS=--plans` adds the plans.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from local.servers import LOCAL, Servers

FOLDER = LOCAL / "million"
FLOWS = 300_000
REPEATS = 5
WIDE = 1_000

# Two children and two attempts a flow, and some more: 1,000,000 promises. Of a thousand flows one is pending, one was
# rejected; of ten thousand one waits for somebody, and one was set aside.
FILL = """
INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", function, args, digest, state, value,
    error, created_at, deadline_at, settled_at, phase, note, continuation, fence, failures, losses, sends)
SELECT CASE WHEN call < 0 THEN id ELSE id || '.' || call END, id, CASE WHEN call >= 0 THEN id END, GREATEST(call, 0),
    CASE WHEN call < 0 THEN 'root' WHEN call = 2 THEN 'external' ELSE 'rpc' END,
    CASE WHEN n %% 100000 = 7 THEN 'rare' ELSE 'service-' || chr(97 + (n + call + 1) %% 9) END,
    CASE WHEN call < 0 THEN 'f' || n %% 20 ELSE 'child' END, '["some", "arguments"]', 'd', state,
    CASE state WHEN 'resolved' THEN '{"a": "value"}'::json END,
    CASE state WHEN 'rejected' THEN '{"type": "ValueError", "message": "no", "traceback": "", "cause": null}'::json END,
    born, born + interval '1 year', CASE WHEN state <> 'pending' THEN born + interval '1 s' END,
    CASE WHEN state <> 'pending' OR call = 2 THEN '' WHEN n %% 10000 = 17 THEN 'aside' ELSE 'suspended' END,
    CASE WHEN state = 'pending' AND n %% 10000 = 17 THEN 'another call' ELSE '' END, '', 2, 0, 0, 0
FROM (
    SELECT n, call, 'order-' || n AS id, now() - (%(flows)s - n) * interval '1 s' AS born, CASE
        WHEN n %% 1000 = 17 AND (call < 0 OR call = 2) THEN 'pending'
        WHEN n %% 1000 = 18 AND call <= 0 THEN 'rejected' ELSE 'resolved' END AS state
    FROM generate_series(1, %(flows)s) AS n CROSS JOIN generate_series(-1, 2) AS call
    WHERE call < 2 OR n %% 3 = 0 OR n %% 1000 = 17
) AS flow
"""
ATTEMPTS = """
INSERT INTO flows_attempt (promise_id, fence, outcome, started_at, ended_at)
SELECT id, tried, CASE tried WHEN 1 THEN 'suspended' ELSE 'resolved' END, created_at, created_at + interval '5 ms'
FROM flows_promise CROSS JOIN generate_series(1, 2) AS tried WHERE kind <> 'external'
"""
WIDE_FLOW = """
INSERT INTO flows_promise (id, root_id, parent_id, "position", kind, "group", function, args, digest, state, value,
    deadline_at, settled_at, phase, note, continuation, fence, failures, losses, sends)
SELECT CASE WHEN n < 0 THEN 'wide' ELSE 'wide.' || n END, 'wide', CASE WHEN n >= 0 THEN 'wide' END, GREATEST(n, 0),
    CASE WHEN n < 0 THEN 'root' ELSE 'rfi' END, 'service-a', CASE WHEN n < 0 THEN 'zim' ELSE 'rax' END,
    '[]', 'd', 'resolved', '1', now() + interval '1 d', clock_timestamp() + interval '1 s', '', '', '', 2, 0, 0, 0
FROM generate_series(-1, %(wide)s) AS n
"""
PAGES = {
    "list, roots": "",
    "list, all": "?role=all",
    "list, page 200": "?p=200",
    "search, exact id": "?q=order-150000",
    "search, prefix": "?q=order-15",
    "filter, pending": "?state=pending",
    "filter, rejected": "?state=rejected",
    "filter, timed out": "?state=timedout",
    "filter, resolved, all": "?state=resolved&role=all",
    "filter, needs attention": "?needs=attention",
    "filter, needs somebody": "?needs=somebody",
    "filter, group": "?group=service-b",
    "filter, rare group, all": "?group=rare&role=all",
    "filter, function": "?call=service-b.f1",
    "filter, last hour": "?created=hour",
    "filter, older than": "?created_at__lt=2026-01-01T00:00:00Z",
    "detail with its tree": "order-150000/change/",
    "overview": "overview/",
    "tree of 1,000, folded": "wide/change/",
    "tree of 1,000, unfolded": "wide/change/?flip=wide.0*",
}


def main(arguments: list[str]) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    with Servers.start(FOLDER) as servers:
        os.environ |= servers.environ | {
            "DJANGO_SETTINGS_MODULE": "gateway_project.settings",
            "SECRET_KEY": "measure",
            "ALLOWED_HOSTS": "testserver",
        }
        import django

        django.setup()
        _fill()
        with _asker() as get:
            for name, path in PAGES.items():
                _measure(get, name, path, plans="--plans" in arguments)


def _fill() -> None:
    from django.core.management import call_command

    from flows.store import sql

    call_command("migrate", verbosity=0)
    began = time.monotonic()
    sql.rows(FILL, flows=FLOWS)
    sql.rows(ATTEMPTS)
    sql.rows(WIDE_FLOW, wide=WIDE - 2)
    sql.rows("VACUUM ANALYZE")
    count, bytes_ = sql.rows("SELECT count(*) AS n, pg_total_relation_size('flows_promise') AS b FROM flows_promise")[
        0
    ].values()
    print(f"{count:,} promises, {bytes_ / 1e6:,.0f} MB with indexes, filled in {time.monotonic() - began:.0f} s")


@contextmanager
def _asker() -> Iterator[Any]:
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    yield client.get


def _measure(get: Any, name: str, path: str, *, plans: bool) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    took_ms = []
    for _ in range(REPEATS):
        began = time.monotonic()
        answer = get(f"/admin/flows/promise/{path}")
        took_ms.append(1000 * (time.monotonic() - began))
        if answer.status_code != 200:  # noqa: PLR2004 - HTTP's
            raise RuntimeError(f"{path} answered {answer.status_code}")
    with CaptureQueriesContext(connection) as asked:
        get(f"/admin/flows/promise/{path}")
    statements = [each["sql"] for each in asked.captured_queries]
    slowest = max((float(each["time"]) for each in asked.captured_queries), default=0)
    size = len(answer.content) / 1000
    print(f"{name:26} {statistics.median(took_ms):7.0f} ms  slowest query {1000 * slowest:5.0f} ms  {size:5.0f} KB")
    for statement in statements if plans else ():
        if statement.startswith("SELECT") and 'FROM "flows_promise"' in statement:
            print(f"    {statement[-220:]}")
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {statement}")
                for (line,) in cursor.fetchall():
                    print(f"        {line}")


if __name__ == "__main__":
    main(sys.argv[1:])
