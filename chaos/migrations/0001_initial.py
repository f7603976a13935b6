"""The tables, and the trigger that watches settled promises."""

from django.db import migrations, models

# The columns are of type json, which knows no equality: their texts are compared.
WATCH = """
CREATE FUNCTION chaos_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_changed (promise, what, at) VALUES (OLD.id, TG_OP || ' of ' || OLD.state || ' '
        || COALESCE(OLD.value::text, OLD.error::text, '-') || ' settled ' || OLD.settled_at
        || CASE TG_OP WHEN 'UPDATE' THEN ' to ' || NEW.state || ' ' || COALESCE(NEW.value::text, NEW.error::text, '-')
            || ' settled ' || COALESCE(NEW.settled_at::text, '-') ELSE '' END, clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_changes AFTER UPDATE ON flows_promise FOR EACH ROW
WHEN (OLD.state <> 'pending' AND (OLD.state, OLD.value::text, OLD.error::text, OLD.settled_at)
    IS DISTINCT FROM (NEW.state, NEW.value::text, NEW.error::text, NEW.settled_at))
EXECUTE FUNCTION chaos_note_change();
CREATE TRIGGER chaos_deletions AFTER DELETE ON flows_promise FOR EACH ROW
WHEN (OLD.state <> 'pending') EXECUTE FUNCTION chaos_note_change();
"""
FORGET = """
DROP TRIGGER chaos_changes ON flows_promise;
DROP TRIGGER chaos_deletions ON flows_promise;
DROP FUNCTION chaos_note_change;
"""


class Migration(migrations.Migration):
    """Both at once."""

    initial = True
    dependencies = [("flows", "0002_calls_with_options")]
    operations = [
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("promise", models.CharField(max_length=1000)),
                ("step", models.CharField(max_length=100)),
                ("amount", models.IntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Changed",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("promise", models.CharField(max_length=1000)),
                ("what", models.TextField()),
                ("at", models.DateTimeField()),
            ],
        ),
        migrations.RunSQL(WATCH, FORGET),
    ]
