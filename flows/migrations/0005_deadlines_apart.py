import flows.domain.promise
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Indexes of a table in use are built beside the writes to it.
    atomic = False

    dependencies = [
        ("flows", "0004_for_operations"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=models.Q(("deadline_at__isnull", False), ("state", flows.domain.promise.State["PENDING"])),
                fields=["deadline_at"],
                name="flows_promise_due",
            ),
        ),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_deadline"),
    ]
