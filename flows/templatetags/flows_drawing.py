"""Bars and marks of call trees as SVG: a thousand rows of them, so not by templates, which take twice as long."""

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from flows.domain.timeline import Event, Spent
from flows.waterfall import Bar, Dot, Row, css

register = template.Library()

# Around x 0 and y 9: a drawing is 18 high.
_SHAPES = {
    css(Event.FAILED): SafeString('<circle cy="9" r="4"/>'),
    css(Event.LOST): SafeString('<path d="M-4 5 4 13M4 5-4 13"/>'),
    css(Event.FENCED): SafeString('<path d="M-4 5h8v8h-8z"/>'),
    css(Event.ASIDE): SafeString('<path d="M-4 5h8v8h-8z"/>'),
    css(Event.STEP): SafeString('<path d="M0 4 5 9 0 14-5 9z"/>'),
}
_THICK = (css(Spent.RUNNING), "extent")
_BAR = '<rect class="fl-{}" x="{}%" width="{}%" y="4" height="10" rx="2"><title>{}</title></rect>'
_LINE = '<line class="fl-{}" x1="{}%" x2="{}%" y1="9" y2="9"><title>{}</title></line>'
_MARK = '<svg x="{}" overflow="visible"><g class="fl-mark fl-{}"><title>{}</title>{}</g></svg>'


@register.simple_tag
def drawing(row: Row) -> SafeString:
    """Return what is drawn of one row."""
    return SafeString("".join([*map(_bar, row.bars), *map(_dot, row.dots)]))


@register.simple_tag
def mark(event: str) -> SafeString:
    """Return a mark as the legend shows it."""
    return format_html(_MARK, 13, event, "", _SHAPES[event])


def _bar(bar: Bar) -> SafeString:
    if bar.css in _THICK:
        return format_html(_BAR, bar.css, bar.x, bar.width, bar.title)
    return format_html(_LINE, bar.css, bar.x, bar.end, bar.title)


def _dot(dot: Dot) -> SafeString:
    return format_html(_MARK, f"{dot.x}%", dot.css, dot.title, _SHAPES[dot.css])
