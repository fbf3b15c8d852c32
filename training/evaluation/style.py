"""How the evaluation's page looks: as all reports, and what its curves and tables add."""

from uflow_edge.runtime import report_style

STYLE = (
    report_style.STYLE
    + """
:root { --nfa: #1f6fb4; --likelihood: #c2570c; }
@media screen and (prefers-color-scheme: dark) { :root { --nfa: #62b2f4; --likelihood: #ff9a52; } }
h3 { margin: 18px 0 6px; } .quiet { font-size: 13.5px; margin-top: 6px; max-width: 105ch; }
section { scroll-margin-top: 12px; }
th { line-height: 1.3; white-space: normal; vertical-align: bottom; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
td a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
.mean td { font-weight: 650; padding-bottom: 16px; }
.chart polyline { stroke-width: 2.2; }
.chart .nfa { stroke: var(--nfa); } .chart .likelihood { stroke: var(--likelihood); }
.keys { margin-top: 10px; } .key i { border-color: var(--nfa); } .key.likelihood i { border-color: var(--likelihood); }
"""
)
