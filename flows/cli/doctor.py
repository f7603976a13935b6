"""Says what is stuck, why, and what to do: in sentences for people, as a list of findings for machines."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.text import Text

from flows.cli.findings import Finding, examine_all
from flows.cli.output import Output

# So many ids of one finding are shown; JSON has them all.
MAX_IDS = 5


def examine(output: Output, options: Mapping[str, Any]) -> int:
    """Tell all findings; 1 if any is a trouble, 0 if there are none, or only what waits as it should."""
    found = examine_all()
    troubles = [finding for finding in found if finding.is_trouble]
    if output.as_json:
        output.json({"healthy": not troubles, "findings": [asdict(finding) for finding in found]})
        return 1 if troubles else 0
    for finding in sorted(found, key=lambda finding: not finding.is_trouble):
        _tell(output, finding)
    output.say(_sum(len(troubles), len(found)))
    return 1 if troubles else 0


def _tell(output: Output, finding: Finding) -> None:
    sign = ("✗ ", "bold red") if finding.is_trouble else ("· ", "dim")
    output.say(Text.assemble(sign, (finding.what, "bold" if finding.is_trouble else "")))
    if finding.advice:
        output.say(Text(f"  {finding.advice}"))
    for example in finding.examples[:MAX_IDS]:
        output.say(Text(f"    {example}", style="dim"))
    if len(finding.examples) > MAX_IDS:
        output.say(Text(f"    and {len(finding.examples) - MAX_IDS} more", style="dim"))
    output.say("")


def _sum(troubles: int, found: int) -> Text:
    if troubles:
        return Text(f"{troubles} {'things need' if troubles > 1 else 'thing needs'} somebody.", style="bold red")
    return Text(
        "Nothing is stuck." if not found else "Nothing is stuck; what waits, waits as it should.", style="green"
    )
