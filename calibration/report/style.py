"""How the calibration report looks: as all reports, and what its charts add."""

from uflow_edge.runtime import report_style

STYLE = (
    report_style.STYLE
    + """
.costs td:nth-child(2), .costs th:nth-child(2) { text-align: left; white-space: normal; min-width: 200px; }
.chart .axis, .chart .tick { stroke: var(--quiet); }
.chart .bar { fill: var(--data); } .chart .bar.above { fill: var(--bad); } .chart .band { fill: var(--band); }
.chart path.limit { stroke: var(--limit); stroke-width: 2; } .chart text.limit { fill: var(--limit); font-weight: 700; }
.chart path.zero { stroke: var(--ink); stroke-dasharray: 5 4; } .chart text.zero { fill: var(--ink); }
.chart .diagonal { stroke: var(--quiet); stroke-dasharray: 3 3; }
.chart .before { stroke: var(--data-quiet); stroke-width: 1.8; }
.chart .after { stroke: var(--data); stroke-width: 2.4; }
.key.before i { border-color: var(--data-quiet); }
.key.diagonal i { border-top: 2px dashed var(--quiet); }
"""
)
