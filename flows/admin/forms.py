"""What is asked before something is done to promises."""

import json
from typing import Any

from django import forms

from flows.domain import values
from flows.domain.errors import InvalidInputError
from flows.domain.ids import MAX_CALLS, MAX_ID, check_id

MAX_REASON = 500


class ReasonForm(forms.Form):
    """Why it is done."""

    reason = forms.CharField(
        max_length=MAX_REASON,
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
        help_text="Kept with your name in the history of the promise.",
    )


class ResolveForm(ReasonForm):
    """The value of an external promise."""

    value = forms.CharField(
        label="Value, as JSON",
        initial="true",
        widget=forms.Textarea(attrs={"rows": 4, "cols": 60, "class": "fl-code", "spellcheck": "false"}),
        help_text='For example true, null, "yes" or {"approved": true}.',
    )
    field_order = ("value", "reason")

    def clean_value(self) -> Any:
        """Return the value that the JSON text stands for."""
        try:
            value = json.loads(self.cleaned_data["value"])
            values.encode(value, "value")
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise forms.ValidationError(f"This is not JSON: {error.msg} ({place}). Texts stand in quotes.") from error
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"This cannot be stored: {error}.") from error
        return value


class RejectForm(ReasonForm):
    """The failure of an external promise."""

    error = forms.CharField(
        label="Error",
        max_length=1000,
        widget=forms.TextInput(attrs={"size": 60}),
        help_text="The message that the waiting function sees.",
    )
    field_order = ("error", "reason")


class RunAgainForm(ReasonForm):
    """The new flow."""

    new_id = forms.CharField(label="New id", max_length=MAX_ID, help_text="Of a flow that does not exist yet.")
    from_step = forms.IntegerField(
        label="From call",
        required=False,
        min_value=0,
        max_value=MAX_CALLS,
        help_text="Its position, from 0 on: what the calls before it have come to is taken over. "
        "Empty: from the start.",
    )
    field_order = ("new_id", "from_step", "reason")

    def clean_new_id(self) -> str:
        """Return the id, if a flow may have it."""
        try:
            return check_id(self.cleaned_data["new_id"])
        except InvalidInputError as error:
            raise forms.ValidationError(f"An id {error.rule}.") from error
