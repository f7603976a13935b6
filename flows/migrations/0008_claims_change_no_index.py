from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models

import flows.domain.promise

# The new row of a claim is to find room beside the old one, in its page: only then the indexes may stay as they are. Of
# many calls that are made at once each page is half full until they are claimed.
LEAVE_ROOM = "ALTER TABLE flows_promise SET (fillfactor = 50)"
LEAVE_NONE = "ALTER TABLE flows_promise RESET (fillfactor)"


class Migration(migrations.Migration):
    # Indexes of a table in use are built beside the writes to it.
    atomic = False

    dependencies = [
        ("flows", "0007_ready_at"),
    ]

    operations = [
        migrations.RunSQL(LEAVE_ROOM, LEAVE_NONE),
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=models.Q(("ready_at__isnull", False), ("settled_at__isnull", True)),
                fields=["group", "ready_at"],
                name="flows_promise_runnable",
            ),
        ),
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=models.Q(
                    ("ready_at__isnull", True),
                    ("settled_at__isnull", True),
                    models.Q(
                        (
                            "kind__in",
                            [
                                flows.domain.promise.Kind["RUN"],
                                flows.domain.promise.Kind["TIMER"],
                                flows.domain.promise.Kind["EXTERNAL"],
                            ],
                        ),
                        _negated=True,
                    ),
                ),
                fields=["id"],
                name="flows_promise_waiting",
            ),
        ),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_attention"),
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=models.Q(
                    ("state", flows.domain.promise.State["PENDING"]),
                    models.Q(
                        models.Q(("note", ""), _negated=True),
                        ("failures__gte", 3),
                        ("losses__gte", 2),
                        _connector="OR",
                    ),
                ),
                fields=["-created_at"],
                name="flows_promise_attention",
            ),
        ),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_ready"),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_claimed"),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_suspended"),
    ]
